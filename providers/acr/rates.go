package acr

import "github.com/twinport/twinport/replicator/oci"

// Rates are the requests per second of single classes that every tier grants
// (Microsoft Learn, "Azure Container Registry service limits", Basic and
// Standard): 10,000 reads, 2,000 writes, 1,000 deletes and 500 lists of referrers
// a minute, of a registry. Premium grants twice as much, one identity may get
// half: then a 429 says how long to wait. Starts, uploads and manifests share
// the writes: of an image with five blobs in two manifests as many as they have here.
var Rates = map[oci.Operation]float64{
	oci.OpManifestRead: read, oci.OpManifestHead: read, oci.OpBlobRead: read, oci.OpBlobHead: read, oci.OpList: read,
	oci.OpManifestWrite: 0.2 * write, oci.OpBlobWrite: 0.4 * write, oci.OpUploadStart: 0.4 * write,
	oci.OpDelete: 1000.0 / 60, oci.OpReferrers: 500.0 / 60,
}

const (
	read  = 10_000.0 / 60
	write = 2_000.0 / 60
)
