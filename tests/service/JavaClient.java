import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

/** Asks a gateway (URL) with the JDK's client as it comes, and prints a line per answer: what, status, version, size. */
public class JavaClient {
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] arguments) throws Exception {
        String gateway = arguments[0];
        String messages = "{\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}], \"stream\": %s}";
        String whole = messages.formatted(false);
        ask("models", request(gateway + "/v1/models").GET());
        ask("chat", request(gateway + "/v1/chat/completions").POST(text(whole)));
        ask("again", request(gateway + "/v1/chat/completions").POST(text(whole)));
        ask("stream", request(gateway + "/v1/chat/completions").POST(text(messages.formatted(true))));
        ask("chunked", request(gateway + "/v1/chat/completions").POST(chunked(whole)));
        ask("expect", request(gateway + "/v1/chat/completions").POST(text(whole)).expectContinue(true));
        ask("large", request(gateway + "/weights").POST(text("{\"prompt\": \"" + "x".repeat(500_000) + "\"}")));
    }

    static HttpRequest.Builder request(String url) {
        return HttpRequest.newBuilder(URI.create(url))
            .timeout(Duration.ofSeconds(30)).header("Content-Type", "application/json");
    }

    static BodyPublisher text(String body) {
        return BodyPublishers.ofString(body);
    }

    /** Of a length that is not known when it begins. */
    static BodyPublisher chunked(String body) {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body.getBytes()));
    }

    static void ask(String name, HttpRequest.Builder request) throws Exception {
        var answer = CLIENT.send(request.build(), BodyHandlers.ofString());
        System.out.println(name + " " + answer.statusCode() + " " + answer.version() + " " + answer.body().length());
    }
}
