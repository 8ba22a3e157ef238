package node

import (
	"strings"
	"testing"
	"time"
)

// What is dead is remembered until a complete snapshot, and every one that is being restored, began after it died.
func TestPurgeAge(t *testing.T) {
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	for _, c := range []struct {
		name           string
		url            string
		after          time.Duration
		newest, pinned int64
		least, most    time.Duration
	}{
		{"no snapshots", "", time.Minute, 0, 0, time.Minute, time.Minute},
		{"never", "file:///b", 0, ago(time.Hour), 0, 0, 0},
		{"no complete snapshot known", "file:///b", time.Minute, 0, 0, -1, -1},
		{"a young one", "file:///b", time.Hour, ago(time.Minute), 0, time.Hour, time.Hour},
		{"an old one", "file:///b", time.Minute, ago(time.Hour), 0, time.Hour + 11*time.Second, time.Hour + 15*time.Second},
		{"an older one is being restored", "file:///b", time.Minute, ago(time.Minute), ago(time.Hour), time.Hour + 11*time.Second, time.Hour + 15*time.Second},
		{"the newest is being restored", "file:///b", time.Minute, ago(time.Hour), ago(time.Hour), time.Hour + 11*time.Second, time.Hour + 15*time.Second},
	} {
		n, d := &node{cfg: Config{BackupURL: c.url, PurgeAfter: c.after}}, &dataPath{}
		d.backups.newest.Store(c.newest)
		d.backups.pinned.Store(c.pinned)
		if age := n.purgeAge(d); age < c.least || age > c.most {
			t.Errorf("%s: %v", c.name, age)
		}
	}
}

func TestBucketURLs(t *testing.T) {
	for url, said := range map[string]string{
		"":                                       "",
		"file:///var/backups/kai":                "",
		"s3://b?region=eu-central-1&prefix=kai/": "",
		"s3://b":                                 "",
		"gs://b?prefix=a/b/":                     "",
		"ftp://b":                                "not a bucket",
		"b":                                      "not a bucket",
		"s3:b":                                   "name of a bucket",
		"file://relative":                        "absolute",
		"file:///":                               "absolute",
		"file:///b?prefix=a/":                    "without ?",
		"s3://b/dir":                             "?prefix=dir/",
		"gs://":                                  "name of a bucket",
		"gs://b?prefix=a":                        "end in /",
		"s3://b?%zz":                             "",
		"s3://b\x7f":                             "not a bucket",
	} {
		err := checkBucketURL(url)
		if (err == nil) != (said == "") || err != nil && !strings.Contains(err.Error(), said) {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := OpenBucket(t.Context(), Config{}, "s3://b/dir", false); err == nil || !strings.Contains(err.Error(), "s3://b/dir") {
		t.Error(err)
	}
}
