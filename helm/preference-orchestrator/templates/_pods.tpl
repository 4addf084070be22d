{{/* What all pods and containers share. */}}

{{/* preStop: so long nothing is told to the process, until no Service or Ingress sends it requests any more. */}}
{{- define "preforch.preStopSeconds" -}}10{{- end -}}

{{/* preStop, the drain, and time for last error events and for closing. */}}
{{- define "preforch.graceSeconds" -}}
{{- add (include "preforch.preStopSeconds" .) .Values.drainSeconds 10 -}}
{{- end -}}

{{- define "preforch.preStop" -}}
lifecycle:
  preStop:
    sleep:
      seconds: {{ include "preforch.preStopSeconds" . }}
{{- end -}}

{{- define "preforch.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.podSecurity.runAsUser }}
  runAsGroup: {{ .Values.podSecurity.runAsGroup }}
  fsGroup: {{ .Values.podSecurity.fsGroup }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "preforch.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* No version in here: a new chart alone shall not start engines again. In: root, part (values of gateway or engine), component. */}}
{{- define "preforch.podMetadata" -}}
labels:
  {{- include "preforch.selector" . | nindent 2 }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .part.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .part.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Everything of a pod but containers and volumes. In: root, part, component. */}}
{{- define "preforch.podBase" -}}
serviceAccountName: {{ include "preforch.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "preforch.graceSeconds" .root }}
{{ include "preforch.podSecurity" .root }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne .part.topologySpread "off" }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $.part.topologySpread }}
    labelSelector:
      matchLabels:
        {{- include "preforch.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Resources of a container, with its GPUs. In: resources, gpu (or nil). */}}
{{- define "preforch.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- with .gpu -}}
{{- $limits := default dict $resources.limits -}}
{{- $_ := set $limits .resource (toString .count) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
resources:
  {{- toYaml $resources | nindent 2 }}
{{- end -}}

{{/* How many times a probe may fail within a budget. In: seconds, period. */}}
{{- define "preforch.failures" -}}{{ div (add .seconds .period -1) .period }}{{- end -}}
