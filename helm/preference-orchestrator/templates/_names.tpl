{{/* Names and labels. */}}

{{- define "preforch.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "preforch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "preforch.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "preforch.gateway.name" -}}{{ include "preforch.fullname" . }}-gateway{{- end -}}
{{- define "preforch.engine.name" -}}{{ include "preforch.fullname" . }}-engine{{- end -}}

{{- define "preforch.serviceAccountName" -}}
{{- $default := ternary (include "preforch.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $default .Values.serviceAccount.name -}}
{{- end -}}

{{/* In: root, component. */}}
{{- define "preforch.selector" -}}
app.kubernetes.io/name: {{ include "preforch.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "preforch.labels" -}}
{{ include "preforch.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: preference-orchestrator
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* In: root, image. */}}
{{- define "preforch.image" -}}
{{- $tag := default .root.Chart.AppVersion .image.tag -}}
{{- .image.repository }}{{ with .image.digest }}@{{ . }}{{ else }}:{{ $tag }}{{ end -}}
{{- end -}}

{{/* "yes" where the release has a gateway. */}}
{{- define "preforch.hasGateway" -}}{{ if ne .Values.mode "route" }}yes{{ end }}{{- end -}}

{{/* "yes" where a policy is behind the gateway, so that it needs a card. */}}
{{- define "preforch.hasPolicy" -}}{{ if has .Values.mode (list "split" "external" "allInOne") }}yes{{ end }}{{- end -}}

{{/* A file that only root and its group read, as `preforch serve` demands. */}}
{{- define "preforch.secretMode" -}}0440{{- end -}}
