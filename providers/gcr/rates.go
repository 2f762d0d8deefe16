package gcr

import "github.com/twinport/twinport/replicator/oci"

// Rates are the requests per second of single classes that are granted to a
// project in a location (Artifact Registry, "Quotas and limits"): 60,000
// requests a minute, of which 18,000 writes and 18,000 deletes. Starts, uploads
// and manifests share the writes: of an image with five blobs in two manifests
// as many as they have here.
var Rates = map[oci.Operation]float64{
	oci.OpManifestRead: all, oci.OpManifestHead: all, oci.OpBlobRead: all, oci.OpBlobHead: all, oci.OpList: all, oci.OpReferrers: all,
	oci.OpManifestWrite: 0.2 * write, oci.OpBlobWrite: 0.4 * write, oci.OpUploadStart: 0.4 * write, oci.OpDelete: write,
}

const (
	all   = 60_000.0 / 60
	write = 18_000.0 / 60
)
