{{- /* The daemon's configuration as a map: handlers and metrics, and `config` over them. */ -}}
{{- define "kevel.config" -}}
{{- if not (hasKey .Values.handlers .Values.defaultHandler) -}}
{{- fail (printf "defaultHandler: %q is not one of handlers" .Values.defaultHandler) -}}
{{- end -}}
{{- $runtimes := dict -}}
{{- range $name, $handler := .Values.handlers -}}
{{- $_ := set $runtimes $name $handler.config -}}
{{- end -}}
{{- $containerd := dict "default_runtime_name" .Values.defaultHandler "runtimes" $runtimes -}}
{{- $plugins := dict "io.containerd.cri.v1.runtime" (dict "containerd" $containerd) -}}
{{- if .Values.metrics.enabled -}}
{{- $_ := set $plugins "io.containerd.server.v1.metrics" (dict "address" (printf "0.0.0.0:%d" (int .Values.metrics.port))) -}}
{{- end -}}
{{- $made := dict "version" 4 "plugins" $plugins -}}
{{- mergeOverwrite $made (deepCopy .Values.config) | toJson -}}
{{- end -}}

{{- /* A map as TOML. Helm's own toToml writes the whole numbers of values files as floats, which the daemon refuses. */ -}}
{{- define "kevel.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .map -}}
{{- if not (kindIs "map" $value) }}
{{ $key | quote }} = {{ include "kevel.tomlValue" $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .map -}}
{{- if kindIs "map" $value -}}
{{- $below := append $path ($key | quote) }}

[{{ join "." $below }}]
{{- include "kevel.toml" (dict "path" $below "map" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kevel.tomlValue" -}}
{{- if kindIs "slice" . -}}
[{{ range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "kevel.tomlValue" $item }}{{ end }}]
{{- else if kindIs "map" . -}}
{ {{- range $index, $key := keys . | sortAlpha }}{{ if $index }},{{ end }} {{ $key | quote }} = {{ include "kevel.tomlValue" (get $ $key) }}{{ end }} }
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ printf "%.0f" . }}
{{- else -}}
{{ toRawJson . }}
{{- end -}}
{{- end -}}
