{{/* Bundle and policy: a volume each at /artifacts/bundle and /artifacts/policy, filled by an init container where it is
     fetched. In: root, name (bundle or policy), and for containers what (all, or card: preference.json alone). */}}

{{- define "preforch.artifact.folder" -}}
{{- $artifact := get .root.Values .name -}}
/artifacts/{{ .name }}{{ with $artifact.path }}/{{ . }}{{ end }}
{{- end -}}

{{/* Where the gateway finds the policy card. */}}
{{- define "preforch.cardFile" -}}
{{- if .Values.policy.cardConfigMap -}}
/artifacts/policy/preference.json
{{- else -}}
{{ include "preforch.artifact.folder" (dict "root" . "name" "policy") }}/preference.json
{{- end -}}
{{- end -}}

{{- define "preforch.artifact.volume" -}}
{{- $artifact := get .root.Values .name -}}
- name: {{ .name }}
  {{- if eq $artifact.source "pvc" }}
  persistentVolumeClaim:
    claimName: {{ $artifact.pvc.claimName }}
    readOnly: true
  {{- else if eq $artifact.source "image" }}
  image:
    reference: {{ $artifact.image.reference | quote }}
    pullPolicy: {{ $artifact.image.pullPolicy }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ $artifact.sizeLimit }}
  {{- end }}
{{- end -}}

{{- define "preforch.cardVolume" -}}
- name: policy
  configMap:
    name: {{ .Values.policy.cardConfigMap }}
    items: [{key: preference.json, path: preference.json}]
{{- end -}}

{{- define "preforch.artifact.mount" -}}
- name: {{ .name }}
  mountPath: /artifacts/{{ .name }}
  readOnly: true
{{- end -}}

{{/* The init container that fetches; nothing for sources that are mounted. */}}
{{- define "preforch.artifact.fetch" -}}
{{- $artifact := get .root.Values .name -}}
{{- if has $artifact.source (list "objectStorage" "hub") -}}
- name: fetch-{{ .name }}
  {{- if eq $artifact.source "hub" }}
  {{- include "preforch.fetch.hub" (merge (dict "artifact" $artifact) .) | nindent 2 }}
  {{- else if hasPrefix "https://" $artifact.objectStorage.url }}
  {{- include "preforch.fetch.archive" (merge (dict "artifact" $artifact) .) | nindent 2 }}
  {{- else }}
  {{- include "preforch.fetch.bucket" (merge (dict "artifact" $artifact) .) | nindent 2 }}
  {{- end }}
  {{- include "preforch.containerSecurity" . | nindent 2 }}
  resources:
    {{- toYaml .root.Values.fetch.resources | nindent 4 }}
  volumeMounts:
    - name: {{ .name }}
      mountPath: /artifacts/{{ .name }}
    - name: tmp
      mountPath: /tmp
{{- end -}}
{{- end -}}

{{/* The hub's own bookkeeping is removed: the gateway refuses files that the manifest does not list. */}}
{{- define "preforch.fetch.hub" -}}
image: {{ include "preforch.image" (dict "root" .root "image" .root.Values.gateway.image) }}
imagePullPolicy: {{ .root.Values.gateway.image.pullPolicy }}
command: [/bin/sh, -ec]
args:
  - >-
    hf download "$REPOSITORY"
    {{- if eq .what "card" }} "{{ with .artifact.path }}{{ . }}/{{ end }}preference.json"{{ end }}
    --revision "$REVISION" --local-dir "$FOLDER"
    {{- if eq .what "all" }} --exclude .gitattributes --exclude README.md{{ end }};
    rm -rf "$FOLDER/.cache"
env:
  - {name: REPOSITORY, value: {{ .artifact.hub.repository | quote }}}
  - {name: REVISION, value: {{ .artifact.hub.revision | quote }}}
  - {name: FOLDER, value: /artifacts/{{ .name }}}
  - {name: HF_HOME, value: /artifacts/{{ .name }}/.cache}
  {{- with .artifact.hub.tokenSecret }}
  - name: HF_TOKEN
    valueFrom:
      secretKeyRef:
        name: {{ . }}
        key: {{ $.artifact.hub.tokenSecretKey }}
  {{- end }}
{{- end -}}

{{- define "preforch.fetch.image" -}}
image: {{ include "preforch.image" (dict "root" .root "image" .root.Values.fetch.image) }}
imagePullPolicy: {{ .root.Values.fetch.image.pullPolicy }}
{{- with .artifact.objectStorage.credentialsSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{- define "preforch.fetch.bucket" -}}
{{- $storage := .artifact.objectStorage -}}
{{ include "preforch.fetch.image" . }}
command: [rclone]
args:
  - copy
  - {{ $storage.url | replace "s3://" ":s3:" | replace "gs://" ":gcs:" | quote }}
  - /artifacts/{{ .name }}
  {{- if eq .what "card" }}
  - "--include=/{{ with .artifact.path }}{{ . }}/{{ end }}preference.json"
  {{- end }}
  - --config=/tmp/rclone.conf
  - --stats=30s
  - --stats-one-line
  - -v
env:
  {{- if hasPrefix "gs://" $storage.url }}
  - {name: RCLONE_GCS_ENV_AUTH, value: "true"}
  - {name: RCLONE_GCS_BUCKET_POLICY_ONLY, value: "true"}
  {{- else }}
  - {name: RCLONE_S3_ENV_AUTH, value: "true"}
  - {name: RCLONE_S3_PROVIDER, value: {{ $storage.provider | quote }}}
  {{- with $storage.endpoint }}
  - {name: RCLONE_S3_ENDPOINT, value: {{ . | quote }}}
  {{- end }}
  {{- with $storage.region }}
  - {name: RCLONE_S3_REGION, value: {{ . | quote }}}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "preforch.fetch.archive" -}}
{{ include "preforch.fetch.image" . }}
command: [/bin/sh, -ec]
args:
  - >-
    rclone copyurl "$URL" "$FOLDER/.archive" --config=/tmp/rclone.conf;
    echo "$SHA256  $FOLDER/.archive" | sha256sum -c -;
    tar -xzf "$FOLDER/.archive" -C "$FOLDER";
    rm "$FOLDER/.archive"
env:
  - {name: URL, value: {{ .artifact.objectStorage.url | quote }}}
  - {name: SHA256, value: {{ .artifact.objectStorage.sha256 | quote }}}
  - {name: FOLDER, value: /artifacts/{{ .name }}}
{{- end -}}
