// Package check holds the manifests to Kubernetes' own types, and to Kai. It is a module of its own, so that Kai does not depend on Kubernetes.
package check

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

type manifests struct {
	config   corev1.ConfigMap
	account  corev1.ServiceAccount
	services []corev1.Service
	set      appsv1.StatefulSet
	budget   policyv1.PodDisruptionBudget
	network  networkingv1.NetworkPolicy
}

// load reads what kustomization.yaml names; a field that Kubernetes does not know is a fault.
func load(t *testing.T) (m manifests) {
	t.Helper()
	var k struct {
		metav1.TypeMeta
		Resources []string `json:"resources"`
	}
	read := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	strict := func(name string, doc []byte, into any) {
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	strict("kustomization.yaml", read("kustomization.yaml"), &k)
	all, err := filepath.Glob("../*.yaml")
	if err != nil || len(all) != len(k.Resources)+1 {
		t.Fatalf("kustomization.yaml names %q, and there are %q", k.Resources, all)
	}
	for _, name := range k.Resources {
		for _, doc := range bytes.Split(read(name), []byte("\n---\n")) {
			var is metav1.TypeMeta
			if err := yaml.Unmarshal(doc, &is); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			switch is.APIVersion + " " + is.Kind {
			case "v1 ConfigMap":
				strict(name, doc, &m.config)
			case "v1 ServiceAccount":
				strict(name, doc, &m.account)
			case "v1 Service":
				var s corev1.Service
				strict(name, doc, &s)
				m.services = append(m.services, s)
			case "apps/v1 StatefulSet":
				strict(name, doc, &m.set)
			case "policy/v1 PodDisruptionBudget":
				strict(name, doc, &m.budget)
			case "networking.k8s.io/v1 NetworkPolicy":
				strict(name, doc, &m.network)
			default:
				t.Errorf("%s has %s %s, which nothing is known of", name, is.APIVersion, is.Kind)
			}
		}
	}
	return m
}

func TestManifests(t *testing.T) {
	m := load(t)
	pod := m.set.Spec.Template
	labels := pod.Labels
	selects := func(who string, selector map[string]string) {
		t.Helper()
		if len(selector) == 0 {
			t.Errorf("%s selects everything", who)
		}
		for k, v := range selector {
			if labels[k] != v {
				t.Errorf("%s does not select the pods: %s=%s", who, k, v)
			}
		}
	}
	selects("the set", m.set.Spec.Selector.MatchLabels)
	selects("the budget", m.budget.Spec.Selector.MatchLabels)
	selects("the network policy", m.network.Spec.PodSelector.MatchLabels)

	c := pod.Spec.Containers[0]
	ports := map[string]corev1.ContainerPort{}
	for _, p := range c.Ports {
		ports[p.Name] = p
	}
	var nodes *corev1.Service
	for _, s := range m.services {
		selects("service "+s.Name, s.Spec.Selector)
		for _, p := range s.Spec.Ports {
			to, ok := ports[p.TargetPort.StrVal]
			if !ok || to.ContainerPort != p.Port || (p.Protocol == corev1.ProtocolUDP) != (to.Protocol == corev1.ProtocolUDP) {
				t.Errorf("service %s: port %s goes to %v, which the container has not", s.Name, p.Name, p.TargetPort.StrVal)
			}
		}
		if s.Name == m.set.Spec.ServiceName {
			nodes = &s
		}
	}
	if nodes == nil || nodes.Spec.ClusterIP != corev1.ClusterIPNone || !nodes.Spec.PublishNotReadyAddresses {
		t.Fatal("the set's service must be headless, and have addresses of pods that are not ready: founders are not")
	}
	if want := "dns:" + nodes.Name + ":11213"; m.config.Data["KAI_DISCOVERY"] != want {
		t.Errorf("KAI_DISCOVERY is %q, not %q", m.config.Data["KAI_DISCOVERY"], want)
	}
	if m.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Error("founders wait for each other: pods must start at once")
	}
	if b := m.budget.Spec.MaxUnavailable; b == nil || b.IntValue() != 1 {
		t.Error("the budget must allow one")
	}
	if ready := c.ReadinessProbe.HTTPGet; ready.Path != "/readyz" || ready.Port.StrVal != "admin" {
		t.Errorf("readiness asks %+v", ready)
	}
	if live := c.LivenessProbe.HTTPGet; live.Path != "/livez" || live.Port.StrVal != "admin" {
		t.Errorf("liveness asks %+v: a node that is not ready must not be killed for it", live)
	}
	s := c.SecurityContext
	if !*pod.Spec.SecurityContext.RunAsNonRoot || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Error("not as an ordinary user with a root that is read only, and no capabilities")
	}
	if len(c.VolumeMounts) != 1 || c.VolumeMounts[0].MountPath != "/data" || m.set.Spec.VolumeClaimTemplates[0].Name != c.VolumeMounts[0].Name {
		t.Error("the volume must be at /data, as the image has it")
	}
}

// TestSettings has kai take the settings, as a pod gets them.
func TestSettings(t *testing.T) {
	m := load(t)
	kai := filepath.Join(t.TempDir(), "kai")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../..", "-o", kai, "./node/cmd/kai")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config := exec.CommandContext(t.Context(), kai, "config")
	for k, v := range m.config.Data {
		config.Env = append(config.Env, k+"="+v)
	}
	for _, e := range m.set.Spec.Template.Spec.Containers[0].Env {
		switch e.ValueFrom.FieldRef.FieldPath {
		case "status.podIP":
			config.Env = append(config.Env, e.Name+"=10.0.0.1")
		case "metadata.labels['topology.kubernetes.io/zone']":
			config.Env = append(config.Env, e.Name+"=")
		default:
			t.Errorf("%s comes from %s", e.Name, e.ValueFrom.FieldRef.FieldPath)
		}
	}
	out, err := config.CombinedOutput()
	if err != nil {
		t.Fatalf("kai does not take these settings: %v\n%s", err, out)
	}
	for k, v := range m.config.Data {
		if !strings.Contains(string(out), k) || !strings.Contains(string(out), v) {
			t.Errorf("kai config does not show %s=%s:\n%s", k, v, out)
		}
	}
}
