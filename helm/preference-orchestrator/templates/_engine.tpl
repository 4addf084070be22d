{{/* The engine's containers and volumes. In: root. */}}

{{/* Makes vLLM's arguments from bundle and policy, so that they are those of `preforch serve`; verifies both on the way. */}}
{{- define "preforch.engine.argumentsContainer" -}}
{{- $gateway := .Values.gateway -}}
- name: engine-args
  image: {{ include "preforch.image" (dict "root" . "image" $gateway.image) }}
  imagePullPolicy: {{ $gateway.image.pullPolicy }}
  command: [preforch, engine-args]
  args:
    - {{ include "preforch.artifact.folder" (dict "root" . "name" "bundle") }}
    - "--policy={{ include "preforch.artifact.folder" (dict "root" . "name" "policy") }}"
    {{- with .Values.servedModelName }}
    - "--served-model-name={{ . }}"
    {{- end }}
    - "--host={{ ternary "127.0.0.1" .Values.bindAddress (eq .Values.mode "allInOne") }}"
    - "--port={{ .Values.engine.port }}"
    {{- if eq .Values.engine.accelerator "cpu" }}
    - --cpu
    {{- else if gt (int .Values.engine.gpu.count) 1 }}
    - "--engine-arg=--tensor-parallel-size={{ .Values.engine.gpu.count }}"
    {{- end }}
    {{- with .Values.engine.toolCallParser }}
    - "--tool-call-parser={{ . }}"
    {{- end }}
    {{- with .Values.engine.reasoningParser }}
    - "--reasoning-parser={{ . }}"
    {{- end }}
    - "--engine-arg=--shutdown-timeout={{ .Values.drainSeconds }}"
    {{- range .Values.engine.extraArgs }}
    - {{ printf "--engine-arg=%s" . | quote }}
    {{- end }}
    - --output=/engine/arguments.json
  {{- include "preforch.containerSecurity" . | nindent 2 }}
  resources:
    requests: {cpu: 250m, memory: 512Mi}
    limits: {cpu: "2", memory: 1Gi}
  volumeMounts:
    {{- include "preforch.artifact.mount" (dict "root" . "name" "bundle") | nindent 4 }}
    {{- include "preforch.artifact.mount" (dict "root" . "name" "policy") | nindent 4 }}
    - name: engine
      mountPath: /engine
    - name: tmp
      mountPath: /tmp
{{- end -}}

{{/* kubelet cannot reach the loopback of an all-in-one pod, so there the probe runs inside. In: root. */}}
{{- define "preforch.engine.health" -}}
{{- if eq .Values.mode "allInOne" -}}
exec:
  command:
    - python3
    - -c
    - import urllib.request; urllib.request.urlopen("http://127.0.0.1:{{ .Values.engine.port }}/health", timeout=8)
{{- else -}}
httpGet: {path: /health, port: engine}
{{- end -}}
{{- end -}}

{{- define "preforch.engine.container" -}}
{{- $engine := .Values.engine -}}
- name: engine
  image: {{ include "preforch.image" (dict "root" . "image" $engine.image) }}
  imagePullPolicy: {{ $engine.image.pullPolicy }}
  command: [python3, -c]
  args:
    - import json, os; os.execvp("python3", ["python3", *json.load(open("/engine/arguments.json"))])
  env:
    - {name: VLLM_NO_USAGE_STATS, value: "1"}
    - {name: HF_HUB_OFFLINE, value: "1"}
    - {name: VLLM_HTTP_TIMEOUT_KEEP_ALIVE, value: "60"}
    {{- if eq $engine.accelerator "cpu" }}
    - {name: VLLM_CPU_KVCACHE_SPACE, value: "1"}
    # Threads that compute: the container's CPU limit, not the cores of the node.
    - {name: OMP_NUM_THREADS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    {{- end }}
    # The user has no entry in /etc/passwd, and the root file system is read-only: caches go to /tmp.
    - {name: HOME, value: /tmp}
    - {name: USER, value: engine}
    {{- with $engine.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if ne .Values.mode "allInOne" }}
  ports:
    - {name: engine, containerPort: {{ $engine.port }}, protocol: TCP}
  {{- end }}
  startupProbe:
    {{- include "preforch.engine.health" . | nindent 4 }}
    periodSeconds: 10
    timeoutSeconds: 10
    failureThreshold: {{ include "preforch.failures" (dict "seconds" $engine.startupSeconds "period" 10) }}
  livenessProbe:
    {{- include "preforch.engine.health" . | nindent 4 }}
    periodSeconds: 15
    timeoutSeconds: 10
    failureThreshold: 4
  readinessProbe:
    {{- include "preforch.engine.health" . | nindent 4 }}
    periodSeconds: 10
    timeoutSeconds: 10
    failureThreshold: 2
  {{- include "preforch.preStop" . | nindent 2 }}
  {{- include "preforch.containerSecurity" . | nindent 2 }}
  {{- $gpu := ternary $engine.gpu nil (eq $engine.accelerator "gpu") }}
  {{- include "preforch.resources" (dict "resources" $engine.resources "gpu" $gpu) | nindent 2 }}
  volumeMounts:
    {{- include "preforch.artifact.mount" (dict "root" . "name" "policy") | nindent 4 }}
    - name: engine
      mountPath: /engine
      readOnly: true
    - name: shm
      mountPath: /dev/shm
    - name: engine-tmp
      mountPath: /tmp
{{- end -}}

{{- define "preforch.engine.volumes" -}}
- name: engine
  emptyDir: {sizeLimit: 1Mi}
- name: engine-tmp
  emptyDir: {sizeLimit: 16Gi}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.engine.sharedMemory }}}
{{- end -}}
