package gcr

import "github.com/twinport/twinport/replicator/oci"

// Rates are the requests per second of single classes that are granted to a
// project in a location (Artifact Registry, "Quotas and limits"): 60,000
// requests a minute, of which 18,000 writes and 18,000 deletes.
var Rates = map[oci.Operation]float64{
	oci.OpManifestRead: all, oci.OpManifestHead: all, oci.OpBlobRead: all, oci.OpBlobHead: all, oci.OpList: all, oci.OpReferrers: all,
	oci.OpManifestWrite: write, oci.OpBlobWrite: write, oci.OpUploadStart: write, oci.OpDelete: write,
}

const (
	all   = 60_000.0 / 60
	write = 18_000.0 / 60
)
