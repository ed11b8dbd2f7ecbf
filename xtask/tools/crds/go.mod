// Definitions of other projects' resources that the Helm chart uses, for tests of the chart: nothing here is compiled.
module github.com/wasmbed/wasmbed/xtask/tools/crds

go 1.24.0

require (
	github.com/cert-manager/cert-manager v1.18.2
	github.com/prometheus-operator/prometheus-operator v0.83.0
)
