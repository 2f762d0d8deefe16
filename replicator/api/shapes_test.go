package api

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
)

// Commands and dashboards read these: keys are camelCase, times RFC 3339 in
// UTC, durations seconds, and what is not known is null.
func TestShapes(t *testing.T) {
	rpo := 300.0
	up := true
	for _, test := range []struct {
		name string
		v    any
		want string
	}{
		{"status, nothing known", Status{Routes: []RouteStatus{{Route: "prod", Source: "eu", Destination: "us", State: "seeding"}}},
			`{"daemon":null,"routes":[{"route":"prod","source":"eu","destination":"us","lag":0,"rpo":null,"state":"seeding","waiting":0,"running":0,"failed":0,"refused":0,"held":0,"proven":0,"unconfirmed":0,"remaining":0,"lastSweep":null,"lastProof":null,"paused":false,"deletions":null,"sourceUp":null,"destinationUp":null}]}`},
		{"status", Status{
			Daemon: &DaemonStatus{Version: "1.0.0", PID: 7, StartedAt: noon.UTC(), Listen: "127.0.0.1:8480", Admin: "127.0.0.1:8481"},
			Routes: []RouteStatus{{
				Route: "prod", Source: "eu", Destination: "us", Lag: Seconds(1500 * time.Millisecond), RPO: &rpo, State: "missed", Reason: "x",
				Waiting: 1, Running: 2, Failed: 3, Refused: 4, Held: 5, Proven: 6, Unconfirmed: 1, Remaining: 10,
				LastSweep: Time(noon), LastProof: Time(noon), OldestProof: Time(noon), Paused: true, SourceUp: &up, DestinationUp: &up, Owner: "o", Contact: "c",
			}},
		}, `{"daemon":{"version":"1.0.0","pid":7,"startedAt":"2026-01-31T13:05:00Z","listen":"127.0.0.1:8480","admin":"127.0.0.1:8481"},"routes":[{"route":"prod","source":"eu","destination":"us","lag":1.5,"rpo":300,"state":"missed","reason":"x","waiting":1,"running":2,"failed":3,"refused":4,"held":5,"proven":6,"unconfirmed":1,"remaining":10,"lastSweep":"2026-01-31T13:05:00Z","lastProof":"2026-01-31T13:05:00Z","paused":true,"deletions":null,"sourceUp":true,"destinationUp":true,"owner":"o","contact":"c"}]}`},
		{"behind, nothing known", Behind{Behind: []BehindTag{ShowBehind(journal.Behind{Route: "prod", Destination: "us", Repository: "team/app", Tag: "v1", State: replicator.Waiting})}},
			`{"behind":[{"route":"prod","destination":"us","repository":"team/app","tag":"v1","wanted":null,"proven":null,"pushedAt":null,"why":"waiting"}]}`},
		{"behind", Behind{Behind: []BehindTag{ShowBehind(journal.Behind{
			Route: "prod", Destination: "us", Repository: "team/app", Tag: "v1", Wanted: "sha256:a", Proven: "sha256:b", PushedAt: noon,
			State: replicator.Refused, Error: &replicator.JobError{Kind: "denied", Message: "no"},
		})}}, `{"behind":[{"route":"prod","destination":"us","repository":"team/app","tag":"v1","wanted":"sha256:a","proven":"sha256:b","pushedAt":"2026-01-31T13:05:00Z","why":"refused: no"}]}`},
		{"an action without a digest", Action{Action: "skip"},
			`{"route":"","destination":"","repository":"","destinationRepository":"","tag":"","digest":null,"action":"skip","reason":"","bytes":0}`},
		{"sync", Sync{Copied: 1, Moved: 2, Refused: 3, Failed: 4, Bytes: 5, Requests: Requests{6, 7}, Seconds: 1.25, Findings: []Finding{}},
			`{"copied":1,"moved":2,"deleted":0,"refused":3,"failed":4,"bytes":5,"requests":{"source":6,"destination":7},"seconds":1.25,"findings":[]}`},
		{"verify", Verify{Checked: 2, Missing: []Verified{{"us", "team/app", "v1", "sha256:a"}}, Corrupt: []Verified{}},
			`{"checked":2,"missing":[{"registry":"us","repository":"team/app","tag":"v1","digest":"sha256:a"}],"corrupt":[]}`},
		{"jobs", Jobs{Jobs: []Job{ShowJob(replicator.Job{
			ID: "1abc", Source: replicator.Place{Registry: "eu", Repository: "team/app"}, Destination: replicator.Place{Registry: "us", Repository: "dr/team/app"},
			Tag: "v1", Digest: "sha256:a", Wants: []replicator.Want{{Route: "prod", Destination: "us"}, {Route: "other", Destination: "us"}},
			Lane: replicator.LaneSweep, PushedAt: noon, State: replicator.Waiting, Attempts: 2, NextAttempt: noon,
			Error: &replicator.JobError{Kind: "denied", Message: "no", Hint: "ask"},
		})}, Next: text("n")},
			`{"jobs":[{"id":"1abc","route":"prod","destination":"us","repository":"dr/team/app","source":"eu","sourceRepository":"team/app","tag":"v1","digest":"sha256:a","state":"waiting","lane":"sweep","attempts":2,"nextAttempt":"2026-01-31T13:05:00Z","pushedAt":"2026-01-31T13:05:00Z","error":{"kind":"denied","message":"no","hint":"ask"}}],"next":"n"}`},
		{"a job of which little is known", ShowJob(replicator.Job{ID: "2", State: replicator.Done, NextAttempt: noon}),
			`{"id":"2","route":"","destination":"","repository":"","source":"","sourceRepository":"","tag":"","digest":null,"state":"done","lane":"webhook","attempts":0,"nextAttempt":null,"pushedAt":null,"error":null}`},
		{"no jobs", Jobs{Jobs: []Job{}}, `{"jobs":[],"next":null}`},
		{"findings", Findings{Findings: []Finding{ShowFinding(replicator.Finding{
			ID: "3", Kind: replicator.FindingSourceIncomplete, At: noon, FirstAt: noon, Count: 4, Route: "prod", Registry: "us", Repository: "team/app",
			Tag: "v1", Digest: "sha256:a", Message: "m", Hint: "h", Acknowledged: true,
		})}}, `{"findings":[{"id":"3","kind":"source-incomplete","at":"2026-01-31T13:05:00Z","firstAt":"2026-01-31T13:05:00Z","count":4,"route":"prod","registry":"us","repository":"team/app","tag":"v1","digest":"sha256:a","message":"m","hint":"h","acknowledged":true}],"next":null}`},
		{"history", ShowHistory("eu", "team/app", "v1", []replicator.TagState{{At: noon, Cause: "deleted"}, {At: noon, Digest: "sha256:a", Cause: "push"}}),
			`{"registry":"eu","repository":"team/app","tag":"v1","history":[{"at":"2026-01-31T13:05:00Z","digest":null,"cause":"deleted"},{"at":"2026-01-31T13:05:00Z","digest":"sha256:a","cause":"push"}]}`},
		{"no history", ShowHistory("eu", "team/app", "v1", nil), `{"registry":"eu","repository":"team/app","tag":"v1","history":[]}`},
		{"pause", Pauses{"prod", true}, `{"route":"prod","paused":true}`},
		{"resolved", Resolved{"eu/team/app:v1", "us", "sha256:a"}, `{"reference":"eu/team/app:v1","prefer":"us","digest":"sha256:a"}`},
		{"changed", Changed{3}, `{"changed":3}`},
		{"a problem", Problem{Error: "e"}, `{"error":"e"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := json.Marshal(test.v)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestVerdicts(t *testing.T) {
	for _, test := range []struct {
		name      string
		got, want bool
	}{
		{"a sync is in sync", Sync{Copied: 1}.InSync(), true},
		{"refused", Sync{Refused: 1}.InSync(), false},
		{"failed", Sync{Failed: 1}.InSync(), false},
		{"not compared whole", Sync{Errors: []string{"x"}}.InSync(), false},
		{"sound", Verify{Checked: 1}.Sound(), true},
		{"missing", Verify{Missing: []Verified{{}}}.Sound(), false},
		{"corrupt", Verify{Corrupt: []Verified{{}}}.Sound(), false},
		{"not asked", Verify{Errors: []string{"x"}}.Sound(), false},
	} {
		if test.got != test.want {
			t.Errorf("%s: %t", test.name, test.got)
		}
	}
}
