{{/* Prefix of all names: at most 40 characters, so that a pod's name and number fit into a label. */}}
{{- define "wasmbed.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "wasmbed.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: wasmbed
app.kubernetes.io/name: wasmbed
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Of one component: (dict "root" $ "component" "gateway"). */}}
{{- define "wasmbed.selector" -}}
app.kubernetes.io/name: wasmbed
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "wasmbed.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "wasmbed.serviceAccount" -}}
{{- $own := index .root.Values .component | default dict -}}
{{- dig "serviceAccount" "name" "" $own | default (printf "%s-%s" (include "wasmbed.fullname" .root) .component) -}}
{{- end -}}

{{/* "yes" if the chart runs a component: (dict "root" $ "component" "signer"). A signer needs a key to sign with. */}}
{{- define "wasmbed.runs" -}}
{{- $signer := .root.Values.signer -}}
{{- if ne .component "signer" -}}
{{- if hasKey .root.Values .component }}yes{{ end -}}
{{- else if and $signer.enabled (or $signer.issuerSecret (eq .root.Values.certificates.source "job")) -}}
yes
{{- end -}}
{{- end -}}

{{/* "yes" if people get certificates: a signer needs their authority's key, and gateways its root. */}}
{{- define "wasmbed.operators" -}}
{{- $operators := .Values.operators -}}
{{- if and $operators.enabled (include "wasmbed.runs" (dict "root" . "component" "signer")) (or (eq .Values.certificates.source "job") (and $operators.issuerSecret $operators.trustSecret)) -}}
yes
{{- end -}}
{{- end -}}

{{- define "wasmbed.operatorsSecret" -}}
{{- .Values.operators.issuerSecret | default (printf "%s-signer-operators" (include "wasmbed.fullname" .)) -}}
{{- end -}}

{{- define "wasmbed.signerSecret" -}}
{{- .Values.signer.issuerSecret | default (printf "%s-signer-issuing" (include "wasmbed.fullname" .)) -}}
{{- end -}}

{{/* The Secret of the gateway with a number: (dict "root" $ "number" 0). */}}
{{- define "wasmbed.gatewaySecret" -}}
{{- if eq .root.Values.certificates.source "secrets" -}}
{{- $given := .root.Values.certificates.secrets.gateways -}}
{{- if ge (int .number) (len $given) -}}
{{- fail (printf "certificates.secrets.gateways names %d Secrets, but gateway.replicas is %d: each gateway has its own" (len $given) (int .root.Values.gateway.replicas)) -}}
{{- end -}}
{{- index $given (int .number) -}}
{{- else -}}
{{- printf "%s-gateway-%d-tls" (include "wasmbed.fullname" .root) (int .number) -}}
{{- end -}}
{{- end -}}

{{- define "wasmbed.controllerSecret" -}}
{{- if eq .Values.certificates.source "secrets" -}}
{{- required "certificates.secrets.controller is needed where certificates.source is secrets" .Values.certificates.secrets.controller -}}
{{- else -}}
{{- printf "%s-controller-tls" (include "wasmbed.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* Sources of the projected volume with the roots; gateways and signers need those of devices and factories, gateways that of people. */}}
{{- define "wasmbed.trust" -}}
{{- $cm := .root.Values.certificates.certManager -}}
{{- $fullname := include "wasmbed.fullname" .root -}}
{{- $secret := printf "%s-trust" $fullname -}}
{{- if eq .root.Values.certificates.source "secrets" -}}
{{- $secret = required "certificates.secrets.trust is needed where certificates.source is secrets" .root.Values.certificates.secrets.trust -}}
{{- else if and (eq .root.Values.certificates.source "cert-manager") $cm.servicesIssuer.name -}}
{{- $secret = required "certificates.certManager.trustSecret is needed where an issuer is given" $cm.trustSecret -}}
{{- end -}}
{{- if and (eq .root.Values.certificates.source "cert-manager") (not $cm.servicesIssuer.name) -}}
- secret:
    name: {{ $fullname }}-services-ca
    items:
      - { key: tls.crt, path: services-ca.crt }
{{- if .devices }}
- secret:
    name: {{ $fullname }}-devices-ca
    items:
      - { key: tls.crt, path: devices-ca.crt }
{{- end }}
{{- else -}}
- secret:
    name: {{ $secret }}
    items:
      - { key: services-ca.crt, path: services-ca.crt }
{{- if .devices }}
      - { key: devices-ca.crt, path: devices-ca.crt }
{{- end }}
{{- end -}}
{{- if and .operators (include "wasmbed.operators" .root) }}
- secret:
    name: {{ .root.Values.operators.trustSecret | default (printf "%s-trust" $fullname) }}
    items:
      - { key: operators-ca.crt, path: operators-ca.crt }
{{- end }}
{{- with .root.Values.factory.secret }}
{{- if $.devices }}
- secret:
    name: {{ . }}
    items:
      - { key: factory-ca.crt, path: factory-ca.crt }
{{- end }}
{{- end }}
{{- end -}}

{{/* The key for values of Secrets, of the Secret of that name. */}}
{{- define "wasmbed.dataKey" -}}
- name: data-key
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - { key: data-key, path: data-key }
{{- end -}}

{{/* What pods of both kinds may be given: (dict "root" $ "component" "gateway"). */}}
{{- define "wasmbed.scheduling" -}}
{{- $selector := include "wasmbed.selector" . -}}
{{- with index .root.Values .component }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .affinity }}
affinity: {{- toYaml .affinity | nindent 2 }}
{{- else if gt (int .replicas) 1 }}
# One node that goes takes not all of them.
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- $selector | nindent 14 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Checks of kube-score that this chart does not follow; docs/install.md says why. */}}
{{- define "wasmbed.unscored" -}}
kube-score/ignore: container-resources,container-image-pull-policy
{{- if not .Values.networkPolicy.enabled }},pod-networkpolicy{{ end }}
{{- end -}}

{{- define "wasmbed.probes" -}}
startupProbe:
  httpGet: { path: /health, port: health }
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /health, port: health }
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: { path: /ready, port: health }
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{/* The gateway's configuration file. */}}
{{- define "wasmbed.gatewayConfig" -}}
{{- $config := dict
  "namespace" .Release.Namespace
  "trust_domain" .Values.trustDomain
  "enrollment" (dict "policy" .Values.gateway.enrollment)
  "tls" (dict "ca_file" "/etc/wasmbed/trust/devices-ca.crt" "services_ca_file" "/etc/wasmbed/trust/services-ca.crt")
  "server" (dict "max_connections" (int .Values.gateway.maxConnections))
  "health" (dict "host" "0.0.0.0")
  "logging" (dict "level" .Values.logging.level "format" .Values.logging.format)
-}}
{{- with .Values.gateway.namespaces -}}
{{- $_ := set $config "namespaces" . -}}
{{- if not (has "default" .) -}}
{{- $_ := set $config.enrollment "namespace" (first .) -}}
{{- end -}}
{{- end -}}
{{- if .Values.factory.secret -}}
{{- $_ := set $config.tls "factory_ca_file" "/etc/wasmbed/trust/factory-ca.crt" -}}
{{- end -}}
{{- if include "wasmbed.operators" . -}}
{{- $_ := set $config.tls "operators_ca_file" "/etc/wasmbed/trust/operators-ca.crt" -}}
{{- end -}}
{{- if .Values.dataKeys.gatewaySecret -}}
{{- $_ := set $config "data_key_file" "/etc/wasmbed/data-key/data-key" -}}
{{- end -}}
{{- dict "gateway" (mustMergeOverwrite $config (deepCopy .Values.gateway.config)) | toYaml -}}
{{- end -}}

{{/* The controller's configuration file. */}}
{{- define "wasmbed.controllerConfig" -}}
{{- $config := dict
  "namespace" .Release.Namespace
  "trust_domain" .Values.trustDomain
  "tls" (dict "cert_file" "/etc/wasmbed/tls/tls.crt" "key_file" "/etc/wasmbed/tls/tls.key" "ca_file" "/etc/wasmbed/trust/services-ca.crt")
  "health" (dict "host" "0.0.0.0")
  "logging" (dict "level" .Values.logging.level "format" .Values.logging.format)
-}}
{{- if .Values.controller.watchNamespace -}}
{{- $_ := set $config "watch_namespace" .Values.controller.watchNamespace -}}
{{- end -}}
{{- if .Values.dataKeys.controllerSecret -}}
{{- $_ := set $config "data_key_file" "/etc/wasmbed/data-key/data-key" -}}
{{- end -}}
{{- dict "controller" (mustMergeOverwrite $config (deepCopy .Values.controller.config)) | toYaml -}}
{{- end -}}

{{/* The signer's configuration file. */}}
{{- define "wasmbed.signerConfig" -}}
{{- $config := dict
  "namespace" .Values.signer.pairing.namespace
  "trust_domain" .Values.trustDomain
  "issuer" (dict "cert_file" "/etc/wasmbed/issuing/tls.crt" "key_file" "/etc/wasmbed/issuing/tls.key")
  "devices_ca_file" "/etc/wasmbed/trust/devices-ca.crt"
  "health" (dict "host" "0.0.0.0")
  "logging" (dict "level" .Values.logging.level "format" .Values.logging.format)
-}}
{{- if .Values.factory.secret -}}
{{- $_ := set $config "factory_ca_file" "/etc/wasmbed/trust/factory-ca.crt" -}}
{{- end -}}
{{- if include "wasmbed.operators" . -}}
{{- $issuer := dict "cert_file" "/etc/wasmbed/operators/tls.crt" "key_file" "/etc/wasmbed/operators/tls.key" -}}
{{- $_ := set $config "operators" (dict "issuer" $issuer "services_ca_file" "/etc/wasmbed/trust/services-ca.crt") -}}
{{- end -}}
{{- dict "signer" (mustMergeOverwrite $config (deepCopy .Values.signer.config)) | toYaml -}}
{{- end -}}

{{/* The container that makes and renews certificates: in the hook and in the CronJob. */}}
{{- define "wasmbed.certificatesPod" -}}
{{- $fullname := include "wasmbed.fullname" .root -}}
restartPolicy: OnFailure
serviceAccountName: {{ .account }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: certificates
    image: {{ include "wasmbed.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      - pki
      - secrets
      - --prefix={{ $fullname }}
      - --namespace={{ .root.Release.Namespace }}
      - --trust-domain={{ .root.Values.trustDomain }}
      - --gateways={{ .root.Values.gateway.replicas }}
      {{- if include "wasmbed.runs" (dict "root" .root "component" "signer") }}
      - --signer
      {{- end }}
      {{- if include "wasmbed.operators" .root }}
      - --operators
      {{- end }}
      {{- range .root.Values.certificates.job.hosts }}
      - --host={{ . }}
      {{- end }}
    resources: {{- toYaml .root.Values.certificates.job.resources | nindent 6 }}
    securityContext: {{- toYaml .root.Values.securityContext | nindent 6 }}
    volumeMounts:
      - { name: tmp, mountPath: /tmp }
volumes:
  # Keys pass through it.
  - name: tmp
    emptyDir: { medium: Memory, sizeLimit: 1Mi }
{{- end -}}

{{/* What that container may: RBAC can't tell names apart in a create; reading and changing is of these alone. */}}
{{- define "wasmbed.certificatesRules" -}}
{{- $fullname := include "wasmbed.fullname" . -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, patch]
  resourceNames:
    - {{ $fullname }}-authorities
    - {{ $fullname }}-trust
    - {{ $fullname }}-controller-tls
    {{- if include "wasmbed.runs" (dict "root" . "component" "signer") }}
    - {{ $fullname }}-signer-issuing
    {{- end }}
    {{- if include "wasmbed.operators" . }}
    - {{ $fullname }}-signer-operators
    {{- end }}
    {{- range $number := until (int .Values.gateway.replicas) }}
    - {{ include "wasmbed.gatewaySecret" (dict "root" $ "number" $number) }}
    {{- end }}
{{- end -}}
