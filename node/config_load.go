package node

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"kai/node/ring"
)

// Fault is one thing wrong with an environment.
type Fault struct {
	// Variable and Value are as in the environment; Value is masked if it is secret.
	Variable, Value string
	// Problem says what is wrong with the value, Fix what to do.
	Problem, Fix string
}

func (f Fault) String() string {
	return fmt.Sprintf("%s=%q: %s; %s", f.Variable, f.Value, f.Problem, f.Fix)
}

// ConfigError is every fault of an environment, by variable name.
type ConfigError struct{ Faults []Fault }

func (e *ConfigError) Error() string {
	var b strings.Builder
	plural := "s"
	if len(e.Faults) == 1 {
		plural = ""
	}
	fmt.Fprintf(&b, "configuration: %d fault%s", len(e.Faults), plural)
	for _, f := range e.Faults {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// Load makes the Config of an environment. It is pure: it reads no other environment, no file and
// no interface. Variables that do not start with KAI_ are ignored, an empty variable counts as not
// set. The error is a *ConfigError with every fault there is; the Config is then of no use.
func Load(environ map[string]string) (Config, error) {
	own := map[string]string{}
	for name, value := range environ {
		if strings.HasPrefix(name, prefix) {
			own[name] = value
		}
	}
	c := Config{given: map[string]bool{}}
	err := env.ParseWithOptions(&c, env.Options{
		Environment: own,
		FuncMap:     parsers,
		OnSet:       func(name string, value any, isDefault bool) { c.given[name] = !isDefault && value != "" },
	})
	faults := append(parseFaults(err, own), unknownFaults(own)...)
	bad := map[string]bool{}
	for _, f := range faults {
		bad[f.Variable] = true
	}
	for _, f := range c.check() {
		if !bad[f.Variable] { // a value that could not be read has been reported already
			faults = append(faults, f)
		}
	}
	if len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b Fault) int { return strings.Compare(a.Variable, b.Variable) })
		return Config{}, &ConfigError{faults}
	}
	c.deriveAdvertise()
	return c, nil
}

const prefix = "KAI_"

// parsers replace those of package env, whose errors speak of strconv.
var parsers = map[reflect.Type]env.ParserFunc{
	reflect.TypeFor[ring.Quorum](): parseQuorum,
	reflect.TypeFor[ring.Weight](): func(text string) (any, error) {
		w, err := ring.ParseWeight(text)
		if err != nil {
			return nil, errors.New("is not a number from 0.1 to 10")
		}
		return w, nil
	},
	reflect.TypeFor[int](): func(text string) (any, error) {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return nil, errors.New("is not a number")
		}
		return int(n), nil
	},
	reflect.TypeFor[bool](): func(text string) (any, error) {
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, errors.New("is neither true nor false")
		}
		return b, nil
	},
	reflect.TypeFor[time.Duration](): func(text string) (any, error) {
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, errors.New("is not a duration with a unit")
		}
		return d, nil
	},
}

// parseFaults turns what package env found into faults.
func parseFaults(err error, environ map[string]string) []Fault {
	var all env.AggregateError
	if err == nil {
		return nil
	}
	if !errors.As(err, &all) {
		return []Fault{{Problem: err.Error()}}
	}
	var faults []Fault
	for _, one := range all.Errors {
		var parse env.ParseError
		if !errors.As(one, &parse) {
			faults = append(faults, Fault{Problem: one.Error()})
			continue
		}
		field, _ := reflect.TypeFor[Config]().FieldByName(parse.Name)
		faults = append(faults, fault(field, environ[field.Tag.Get("env")], parse.Err.Error()))
	}
	return faults
}

// fault describes what is wrong with the value of field.
func fault(field reflect.StructField, value, problem string) Fault {
	if field.Type == reflect.TypeFor[Secret]() && value != "" {
		value = masked
	}
	return Fault{field.Tag.Get("env"), value, problem, "write " + field.Tag.Get("want")}
}

// A cluster manager adds variables of its own when a service is called kai (or kai-…): Kubernetes
// the "service links" below. KAI_E2E… switches tests of the project, which start nodes.
var foreign = regexp.MustCompile(`^KAI_(E2E(_[A-Z0-9_]+)?|([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?))$`)

// unknownFaults refuses variables that mean nothing: a misspelt name would else be a default that
// nobody asked for.
func unknownFaults(environ map[string]string) []Fault {
	var faults []Fault
	names := variables()
	for name := range environ {
		if slices.Contains(names, name) || foreign.MatchString(name) {
			continue
		}
		// The value of a misspelt KAI_GOSSIP_KEY is a secret too.
		faults = append(faults, Fault{name, "…", "there is no such variable", "did you mean " + nearest(name, names) + "? `kai config` lists all"})
	}
	return faults
}

// variables are the names of all settings, in the order of Config.
func variables() []string {
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if name := field.Tag.Get("env"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// nearest is the one of names with the least edit distance to name, the first of equals.
func nearest(name string, names []string) string {
	if len(name) > 64 {
		name = name[:64]
	}
	best, least := "", -1
	for _, candidate := range names {
		if d := distance(name, candidate); least < 0 || d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete or replace that turns a into b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
