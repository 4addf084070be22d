{{/* The gateway's container and volumes. In: root. */}}

{{- define "preforch.gateway.arguments" -}}
{{- $gateway := .Values.gateway -}}
- {{ include "preforch.artifact.folder" (dict "root" . "name" "bundle") }}
{{- if eq .Values.mode "weightsOnly" }}
- --weights-only
{{- else }}
- "--policy-card={{ include "preforch.cardFile" . }}"
{{- range include "preforch.upstreams" . | fromJsonArray }}
- "--upstream={{ . }}"
{{- end }}
{{- with .Values.servedModelName }}
- "--served-model-name={{ . }}"
{{- end }}
- "--first-byte-timeout={{ $gateway.firstByteSeconds }}"
- "--max-running={{ $gateway.maxRunning }}"
- "--max-waiting={{ $gateway.maxWaiting }}"
{{- end }}
- "--host={{ .Values.bindAddress }}"
- "--port={{ $gateway.port }}"
- "--metrics-host={{ .Values.bindAddress }}"
- "--metrics-port={{ $gateway.metricsPort }}"
{{- if .Values.auth.disabled }}
- --no-auth
{{- else }}
- "--api-keys=/secrets/api-keys/{{ .Values.auth.secretKey }}"
{{- end }}
{{- range include "preforch.allowedHosts" . | fromJsonArray }}
- "--allowed-host={{ . }}"
{{- end }}
{{- range $gateway.corsOrigins }}
- "--cors-origin={{ . }}"
{{- end }}
- "--device={{ $gateway.device }}"
- "--orchestrator-threads={{ $gateway.orchestratorThreads }}"
- "--precision={{ $gateway.precision }}"
- "--log-format={{ $gateway.logFormat }}"
{{- with $gateway.minConfidence }}
- "--min-confidence={{ . }}"
{{- end }}
{{- if $gateway.presetsConfigMap }}
- --presets=/presets/presets.toml
{{- end }}
{{- with $gateway.otlpEndpoint }}
- "--otlp-endpoint={{ . }}"
{{- end }}
- "--drain-timeout={{ .Values.drainSeconds }}"
{{- range $gateway.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "preforch.upstreams" -}}
{{- if eq .Values.mode "external" -}}
{{ .Values.gateway.upstreams | toJson }}
{{- else if eq .Values.mode "allInOne" -}}
{{ list (printf "http://127.0.0.1:%d" (int .Values.engine.port)) | toJson }}
{{- else -}}
{{ list (printf "http://%s:%d" (include "preforch.engine.name" .) (int .Values.engine.port)) | toJson }}
{{- end -}}
{{- end -}}

{{/* The Service's names, and what Ingress and HTTPRoute let through. */}}
{{- define "preforch.allowedHosts" -}}
{{- $service := include "preforch.gateway.name" . -}}
{{- $local := printf "%s.%s" $service .Release.Namespace -}}
{{- $names := list $service $local (printf "%s.svc" $local) (printf "%s.svc.cluster.local" $local) -}}
{{- if .Values.ingress.enabled }}{{ $names = concat $names .Values.ingress.hosts }}{{ end -}}
{{- if .Values.httpRoute.enabled }}{{ $names = concat $names .Values.httpRoute.hostnames }}{{ end -}}
{{- concat $names .Values.gateway.allowedHosts | uniq | toJson -}}
{{- end -}}

{{- define "preforch.gateway.container" -}}
{{- $gateway := .Values.gateway -}}
- name: gateway
  image: {{ include "preforch.image" (dict "root" . "image" $gateway.image) }}
  imagePullPolicy: {{ $gateway.image.pullPolicy }}
  command: [preforch, serve]
  args:
    {{- include "preforch.gateway.arguments" . | nindent 4 }}
  {{- with $gateway.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: http, containerPort: {{ $gateway.port }}, protocol: TCP}
    - {name: metrics, containerPort: {{ $gateway.metricsPort }}, protocol: TCP}
  # /livez answers once the bundle is loaded; whether the engine is up is a matter of /readyz alone.
  startupProbe:
    httpGet: {path: /livez, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: {{ include "preforch.failures" (dict "seconds" $gateway.startupSeconds "period" 5) }}
  livenessProbe:
    httpGet: {path: /livez, port: http}
    periodSeconds: 10
    timeoutSeconds: 10
    failureThreshold: 6
  readinessProbe:
    httpGet: {path: /readyz, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 2
  {{- include "preforch.preStop" . | nindent 2 }}
  {{- include "preforch.containerSecurity" . | nindent 2 }}
  {{- $gpu := ternary $gateway.gpu nil (eq $gateway.device "cuda") }}
  {{- include "preforch.resources" (dict "resources" $gateway.resources "gpu" $gpu) | nindent 2 }}
  volumeMounts:
    {{- include "preforch.artifact.mount" (dict "root" . "name" "bundle") | nindent 4 }}
    {{- if include "preforch.hasPolicy" . }}
    {{- include "preforch.artifact.mount" (dict "root" . "name" "policy") | nindent 4 }}
    {{- end }}
    {{- if not .Values.auth.disabled }}
    - name: api-keys
      mountPath: /secrets/api-keys
      readOnly: true
    {{- end }}
    {{- if $gateway.presetsConfigMap }}
    - name: presets
      mountPath: /presets
      readOnly: true
    {{- end }}
    - name: tmp
      mountPath: /tmp
{{- end -}}

{{- define "preforch.gateway.volumes" -}}
{{- if not .Values.auth.disabled }}
- name: api-keys
  secret:
    secretName: {{ .Values.auth.secretName }}
    defaultMode: {{ include "preforch.secretMode" . }}
    items: [{key: {{ .Values.auth.secretKey }}, path: {{ .Values.auth.secretKey }}}]
{{- end }}
{{- with .Values.gateway.presetsConfigMap }}
- name: presets
  configMap:
    name: {{ . }}
    items: [{key: presets.toml, path: presets.toml}]
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- end -}}
