// Package terraform has no code: its tests hold the modules for AWS and Google Cloud, and the manifests for Kubernetes, to what Kai needs.
package terraform

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// needTerraform skips a test unless it is wanted (make infra), and can be run here.
func needTerraform(t *testing.T) {
	t.Helper()
	if os.Getenv("KAI_INFRA") == "" {
		t.Skip("KAI_INFRA is not set: make infra runs this")
	}
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skip("terraform is not installed: nothing is checked of the modules")
	}
}

// terraform runs a command of it in dir, without colours and questions.
func terraform(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "terraform", args...)
	cmd.Dir = dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, file, _ := strings.Cut(v, "=")
		if name == "TF_CLI_CONFIG_FILE" {
			_, err := os.Stat(file)
			return err != nil
		}
		return strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "GOOGLE_")
	}), "TF_IN_AUTOMATION=1", "TF_INPUT=0", "CHECKPOINT_DISABLE=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := terraform(t, dir, args...)
	if err != nil {
		t.Fatalf("terraform %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// plugins is a directory of providers on this machine, in the layout that -plugin-dir takes; "" if there is none for provider: then they come from the registry.
func plugins(provider string) string {
	const host = "registry.terraform.io"
	for _, root := range []string{os.Getenv("TF_PLUGIN_DIR"), "/opt", "/usr/share/terraform", "/usr/local/share/terraform"} {
		if root == "" {
			continue
		}
		found := ""
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil || !d.IsDir():
				return nil
			case d.Name() == host:
				if _, err := os.Stat(filepath.Join(path, "hashicorp", provider)); err == nil {
					found = filepath.Dir(path)
					return fs.SkipAll
				}
				return fs.SkipDir
			case strings.Count(strings.TrimPrefix(path, root), "/") > 3:
				return fs.SkipDir
			}
			return nil
		})
		if found != "" {
			return found
		}
	}
	return ""
}

// copied is a copy of this directory that a test may write into, initialised at the given module.
func copied(t *testing.T, provider, module string) (root, dir string) {
	t.Helper()
	root = t.TempDir()
	if err := os.CopyFS(root, os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{".terraform", ".terraform.lock.hcl"} { // of somebody's own attempts
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == left {
				_ = os.RemoveAll(path)
				if d.IsDir() {
					return fs.SkipDir
				}
			}
			return nil
		})
	}
	dir = filepath.Join(root, module)
	return root, dir
}

func initialise(t *testing.T, dir, provider string) {
	t.Helper()
	args := []string{"init", "-backend=false", "-no-color"}
	if p := plugins(provider); p != "" {
		args = append(args, "-plugin-dir="+p)
	}
	if out, err := terraform(t, dir, args...); err != nil {
		t.Skipf("no provider %s: neither a registry nor a copy on this machine (TF_PLUGIN_DIR): %v\n%s", provider, err, out)
	}
}

func TestFormat(t *testing.T) {
	needTerraform(t)
	if out, err := terraform(t, ".", "fmt", "-check", "-recursive", "-diff", "-no-color"); err != nil {
		t.Errorf("not formatted; run terraform fmt -recursive terraform:\n%s", out)
	}
}

// TestAWS validates the module, and runs its own tests.
func TestAWS(t *testing.T) {
	needTerraform(t)
	_, dir := copied(t, "aws", "aws")
	initialise(t, dir, "aws")
	must(t, dir, "validate", "-no-color")
	out := must(t, dir, "test", "-no-color")
	t.Log(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
}

// offline is a provider that asks nobody.
const offline = `
provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
}
`

type resource struct {
	Address, Mode, Type, Name string
	Values                    map[string]any
}

type module struct {
	Resources []resource
	Children  []module `json:"child_modules"`
}

func (m module) all() (rs []resource) {
	for _, r := range m.Resources {
		if r.Mode == "managed" {
			rs = append(rs, r)
		}
	}
	for _, c := range m.Children {
		rs = append(rs, c.all()...)
	}
	return rs
}

// plan returns what a root module would create, with credentials of nobody.
func plan(t *testing.T, dir string, vars map[string]any) []resource {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "offline_override.tf"), []byte(offline), 0o600); err != nil {
		t.Fatal(err)
	}
	given, err := json.Marshal(vars)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "given.auto.tfvars.json"), given, 0o600); err != nil {
		t.Fatal(err)
	}
	initialise(t, dir, "aws")
	must(t, dir, "plan", "-no-color", "-out=plan")
	var p struct {
		Planned struct {
			Root module `json:"root_module"`
		} `json:"planned_values"`
	}
	if err := json.Unmarshal([]byte(must(t, dir, "show", "-json", "plan")), &p); err != nil {
		t.Fatal(err)
	}
	rs := p.Planned.Root.all()
	if len(rs) == 0 {
		t.Fatal("a plan of nothing")
	}
	return rs
}

const bucketOfTest = "snapshots-of-test"

var examples = map[string]map[string]any{
	"minimal": {"image": "registry.example/kai:v1", "vpc_id": "vpc-1", "subnet_ids": []string{"subnet-a", "subnet-b", "subnet-c"}, "client_cidrs": []string{"10.0.0.0/16"}},
	"complete": {"image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/kai:v1", "ecr_repository_arn": "arn:aws:ecr:eu-central-1:123456789012:repository/kai",
		"gossip_key_secret_arn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:gossip-a1b2c3",
		"backup_key_secret_arn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:backup-a1b2c3",
		"certificate_arn":       "arn:aws:acm:eu-central-1:123456789012:certificate/11111111-2222-3333-4444-555555555555",
		"dns":                   map[string]string{"zone_id": "Z0123456789", "name": "kai.example.com"}, "alarm_email": "nobody@example.com"},
	"spot-mixed": {"image": "registry.example/kai:v1", "vpc_id": "vpc-1", "on_demand_subnet_ids": []string{"subnet-a", "subnet-b"}, "spot_subnet_id": "subnet-c",
		"client_security_group_ids": []string{"sg-0123456789abcdef0"}},
}

// TestPlans plans each example, and wants each resource explained in the module's README, which names none that are not planned.
func TestPlans(t *testing.T) {
	needTerraform(t)
	readme, err := os.ReadFile("aws/README.md")
	if err != nil {
		t.Fatal(err)
	}
	planned := map[string]bool{}
	for name, vars := range examples {
		t.Run(name, func(t *testing.T) {
			_, dir := copied(t, "aws", filepath.Join("aws/examples", name))
			rs := plan(t, dir, vars)
			for _, r := range rs {
				if strings.HasPrefix(r.Address, "module.kai.") {
					planned[r.Type+"."+r.Name] = true
				}
			}
			t.Logf("%d resources planned", len(rs))
		})
	}
	if t.Failed() || len(planned) == 0 {
		return
	}
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile("`(aws_[a-z0-9_]+\\.[a-z0-9_]+)`").FindAllSubmatch(readme, -1) {
		explained[string(m[1])] = true
	}
	for r := range planned {
		if !explained[r] {
			t.Errorf("aws/README.md does not explain %s", r)
		}
	}
	for r := range explained {
		if !planned[r] {
			t.Errorf("aws/README.md explains %s, which no example has", r)
		}
	}
}

// TestVariables holds the tables of variables and outputs in the README to the module.
func TestVariables(t *testing.T) {
	for _, cloud := range []string{"aws", "gcp"} {
		readme, err := os.ReadFile(filepath.Join(cloud, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		for file, kind := range map[string]string{"variables.tf": "variable", "outputs.tf": "output"} {
			source, err := os.ReadFile(filepath.Join(cloud, file))
			if err != nil {
				t.Fatal(err)
			}
			var has, told []string
			for _, m := range regexp.MustCompile(`(?m)^`+kind+` "([a-z0-9_]+)"`).FindAllSubmatch(source, -1) {
				has = append(has, string(m[1]))
			}
			section := regexp.MustCompile(`(?s)<!-- ` + kind + `s: begin -->(.*)<!-- ` + kind + `s: end -->`).FindSubmatch(readme)
			if section == nil {
				t.Fatalf("%s/README.md has no table of %ss", cloud, kind)
			}
			for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllSubmatch(section[1], -1) {
				told = append(told, string(m[1]))
			}
			slices.Sort(has)
			slices.Sort(told)
			if !slices.Equal(has, told) {
				t.Errorf("%s/README.md tells of the %ss %q, and there are %q", cloud, kind, told, has)
			}
		}
	}
}

// root is a root module that uses all that user data has, and of which all is known when it is planned.
const root = `
module "kai" {
  source             = "../.."
  name               = "shop"
  image              = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/kai:v1"
  ecr_repository_arn = "arn:aws:ecr:eu-central-1:123456789012:repository/kai"
  vpc_id             = "vpc-1"
  subnet_ids         = ["subnet-a", "subnet-b"]
  size               = { min = 2, max = 6, desired = 4 }
  spot               = { subnet_ids = ["subnet-c"], size = { min = 1, max = 3, desired = 2 } }
  client_cidrs       = ["10.0.0.0/16"]
  backup             = { bucket = "` + bucketOfTest + `" }
  secrets            = { KAI_GOSSIP_KEY = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:gossip-a1b2c3" }
  settings           = { KAI_EXPIRATION = "true" }
  data_volume        = DATA_VOLUME
}
`

// TestUserData runs what an instance runs when it starts, with stand-ins for the commands that need a cloud or change a machine, and shows that kai takes the settings
// that come out, that the service does not start again once the node has left, and that the group is told.
func TestUserData(t *testing.T) {
	needTerraform(t)
	kai := filepath.Join(t.TempDir(), "kai")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", kai, "../node/cmd/kai").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, volume := range map[string]string{"volume": "{}", "instance store": "null"} {
		t.Run(name, func(t *testing.T) {
			_, dir := copied(t, "aws", "aws/examples/root")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(strings.ReplaceAll(root, "DATA_VOLUME", volume)), 0o600); err != nil {
				t.Fatal(err)
			}
			scripts := map[string]string{}
			for _, r := range plan(t, dir, map[string]any{}) {
				if r.Type == "aws_launch_template" {
					text, err := base64.StdEncoding.DecodeString(fmt.Sprint(r.Values["user_data"]))
					if err != nil {
						t.Fatalf("%s: user data is not known: %v", r.Address, err)
					}
					if len(text) > 16<<10 {
						t.Errorf("%d bytes of user data; EC2 takes 16 KiB", len(text))
					}
					scripts[r.Address[strings.LastIndex(r.Address, "[")+2:len(r.Address)-2]] = string(text)
				}
			}
			for group, drain := range map[string]string{"main": "900s", "spot": "100s"} {
				start(t, kai, scripts[group], group, drain)
			}
		})
	}
}

// standIns are commands that write what they are called with into $CALLS. %s is where the script's files are.
var standIns = map[string]string{
	"docker":     `[ "$1" = exec ] && exit 0; [ "$1" = login ] && cat >/dev/null; exit 0`,
	"aws":        `case "$*" in *get-secret-value*) echo 00112233445566778899aabbccddeeff;; *get-login-password*) echo password;; esac`,
	"dnf":        `exit 0`,
	"systemctl":  `exit 0`,
	"curl":       `case "$*" in *api/token*) echo token;; *instance-id*) echo i-0123456789abcdef0;; esac`,
	"blkid":      `[ "$1" = -s ] && echo 11111111-2222-3333-4444-555555555555 && exit 0; exit 2`,
	"mkfs.xfs":   `exit 0`,
	"mount":      `exit 0`,
	"mountpoint": `exit 1`,
	"chown":      `exit 0`,
}

func start(t *testing.T, kai, script, group, drain string) {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "etc/systemd/system", "var/lib", "dev/disk/by-id", "proc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	calls := filepath.Join(root, "calls")
	for name, body := range standIns {
		if err := os.WriteFile(filepath.Join(root, "bin", name), fmt.Appendf(nil, "#!/bin/sh\necho \"%s $*\" >>%s\n%s\n", name, calls, body), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"etc/fstab", "dev/sdf", "dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_AWS0123"} {
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Paths of the machine become those of the test's own; in what the script writes, too.
	script = regexp.MustCompile(`(/etc/|/var/lib/kai|/dev/sdf|/dev/disk)`).ReplaceAllString(script, root+"$1")
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Env = []string{"PATH=" + filepath.Join(root, "bin") + ":/usr/local/bin:/usr/bin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: user data fails: %v\n%s", group, err, out)
	}
	called, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mkfs.xfs " + root + "/dev/", "docker pull -q 123456789012.dkr.ecr.eu-central-1.amazonaws.com/kai:v1", "docker login ", "systemctl enable --now kai",
		"--auto-scaling-group-name shop-kai-" + group + " --lifecycle-hook-name ready --instance-id i-0123456789abcdef0 --lifecycle-action-result CONTINUE"} {
		if !bytes.Contains(called, []byte(want)) {
			t.Errorf("%s: not called: %s, but\n%s", group, want, called)
		}
	}
	unit, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/kai.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Restart=on-failure\n", "--read-only --cap-drop ALL ", "--network host ", "mode=non-blocking", "awslogs-stream=i-0123456789abcdef0"} {
		if !bytes.Contains(unit, []byte(want)) {
			t.Errorf("%s: the service lacks %q:\n%s", group, want, unit)
		}
	}
	file := filepath.Join(root, "etc/kai/kai.env")
	settings, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: the file of settings, which has keys, is %v, %v", group, info.Mode(), err)
	}
	if want := "\nKAI_DRAIN_TIMEOUT=" + drain + "\n"; !strings.Contains(string(settings), want) {
		t.Errorf("%s: no %q in\n%s", group, want, settings)
	}
	config := exec.CommandContext(t.Context(), kai, "config")
	config.Env = append(strings.Split(strings.TrimSpace(string(settings)), "\n"), "KAI_ADVERTISE=127.0.0.1")
	out, err := config.CombinedOutput()
	if err != nil {
		t.Errorf("%s: kai does not take these settings: %v\n%s", group, err, out)
	}
	for _, want := range []string{"s3://" + bucketOfTest + "?region=eu-central-1&prefix=shop/", "aws:tag=kai-cluster=shop"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s: kai config does not show %s:\n%s", group, want, out)
		}
	}
}
