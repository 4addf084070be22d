import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

/**
 * The JDK's own HTTP client, as it comes: weights in the body, then in a header of a stream.
 *
 * <p>Runs as {@code java JavaChat.java}, on Java 17 or newer. PREFORCH_URL and PREFORCH_API_KEY choose another gateway.
 */
public class JavaChat {
    public static void main(String[] arguments) throws Exception {
        var environment = System.getenv();
        String url = environment.getOrDefault("PREFORCH_URL", "http://127.0.0.1:8000");
        String key = environment.getOrDefault("PREFORCH_API_KEY", "none");
        String messages = "\"messages\": [{\"role\": \"user\", \"content\": \"How do I calm a nervous dog?\"}]";

        HttpClient client = HttpClient.newHttpClient();
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + "/v1/chat/completions"))
            .header("Content-Type", "application/json")
            .header("Authorization", "Bearer " + key);
        String body = "{" + messages + ", \"max_tokens\": 48, \"preference_weights\": {\"helpful\": 0.7}}";
        var answer = client.send(request.POST(BodyPublishers.ofString(body)).build(), BodyHandlers.ofString());
        System.out.println(answer.body());
        System.out.println("asked for helpful 0.7: " + answer.headers().firstValue("X-Preference-Weights").get());

        String streamed = "{" + messages + ", \"max_tokens\": 48, \"stream\": true}";
        request = request.header("X-Preference-Weights", "harmless=0.8").POST(BodyPublishers.ofString(streamed));
        var lines = client.send(request.build(), BodyHandlers.ofLines());
        System.out.println("asked for harmless 0.8: " + lines.headers().firstValue("X-Preference-Weights").get());
        lines.body().filter(line -> line.startsWith("data: ")).forEach(System.out::println);
    }
}
