// Package dashboards makes Grafana's dashboards for Kai. The files beside it are what All returns; go test -update writes them anew.
package dashboards

import (
	"encoding/json"
	"fmt"
	"strings"
)

// board is one dashboard.
type board struct {
	title, about string
	panels       []panel
}

// panel is one picture: queries and how they are drawn.
type panel struct {
	title, about string
	unit         string // of Grafana: s, ops, bytes, percentunit, none
	stat         bool   // one large number in place of lines
	wide         bool
	stacked      bool
	queries      []query
	thresholds   []float64 // from which a stat is yellow, and red
}

// query is an expression, and how its series are called.
type query struct{ expr, legend string }

// of restricts selectors to the job, and the instances, that the reader has chosen.
const of = `job=~"$job",instance=~"$instance"`

// All returns the dashboards by the names of their files.
func All() (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, b := range boards {
		text, err := json.MarshalIndent(b.grafana(name), "", "  ")
		if err != nil {
			return nil, fmt.Errorf("dashboards: %s: %w", name, err)
		}
		files[name+".json"] = append(text, '\n')
	}
	return files, nil
}

type object = map[string]any

func (b board) grafana(name string) object {
	var panels []object
	x, y, height := 0, 0, 0
	for i, p := range b.panels {
		w, h := 8, 8
		switch {
		case p.stat:
			w, h = 4, 4
		case p.wide:
			w = 24
		}
		if x+w > 24 {
			x, y, height = 0, y+height, 0
		}
		panels = append(panels, p.grafana(i+1, object{"x": x, "y": y, "w": w, "h": h}))
		x, height = x+w, max(height, h)
	}
	variable := func(name, label, of string) object {
		return object{"name": name, "label": label, "type": "query", "datasource": datasource, "query": object{"query": of, "refId": name}, "definition": of,
			"refresh": 2, "includeAll": true, "multi": true, "allValue": ".*", "current": object{"selected": true, "text": "All", "value": "$__all"}}
	}
	return object{
		"uid": "kai-" + name, "title": "Kai: " + b.title, "description": b.about, "tags": []string{"kai"}, "schemaVersion": 39, "version": 1, "editable": true,
		"time": object{"from": "now-3h", "to": "now"}, "refresh": "30s", "timezone": "browser", "graphTooltip": 1,
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": object{}},
			variable("job", "Cluster", "label_values(kai_ready, job)"),
			variable("instance", "Node", `label_values(kai_ready{job=~"$job"}, instance)`),
		}},
		"links":  []object{{"title": "Kai", "type": "dashboards", "tags": []string{"kai"}, "asDropdown": false, "includeVars": true, "keepTime": true}},
		"panels": panels,
	}
}

var datasource = object{"type": "prometheus", "uid": "${datasource}"}

func (p panel) grafana(id int, at object) object {
	var targets []object
	for i, q := range p.queries {
		targets = append(targets, object{"refId": string(rune('A' + i)), "datasource": datasource, "expr": q.expr, "legendFormat": q.legend, "editorMode": "code", "range": true,
			"exemplar": strings.HasPrefix(q.expr, "histogram_quantile")}) // they name traces
	}
	kind, stacking := "timeseries", "none"
	if p.stat {
		kind = "stat"
	}
	if p.stacked {
		stacking = "normal"
	}
	steps := []object{{"color": "green", "value": nil}}
	for i, at := range p.thresholds {
		steps = append(steps, object{"color": []string{"yellow", "red"}[min(i, 1)], "value": at})
	}
	if len(p.thresholds) == 1 {
		steps[1]["color"] = "red"
	}
	return object{
		"id": id, "type": kind, "title": p.title, "description": p.about, "datasource": datasource, "gridPos": at, "targets": targets,
		"fieldConfig": object{"defaults": object{
			"unit": p.unit, "min": 0, "thresholds": object{"mode": "absolute", "steps": steps},
			"custom": object{"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "stacking": object{"mode": stacking, "group": "A"}},
		}, "overrides": []object{}},
		"options": object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi", "sort": "desc"}, "reduceOptions": object{"calcs": []string{"lastNotNull"}}},
	}
}
