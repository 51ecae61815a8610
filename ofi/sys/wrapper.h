/*
 * What bindgen reads. Names that start with `shim_` lose the prefix in Rust.
 *
 * Constants pass through `static const` variables because bindgen gets `1ULL << n` macros wrong
 * (it makes u32 of them) and leaves out cast macros such as FI_ADDR_UNSPEC altogether.
 */
#include "shim.h"

#define SHIM_U64(name) static const uint64_t shim_##name = (uint64_t)(name);
#define SHIM_U32(name) static const uint32_t shim_##name = (uint32_t)(name);
#define SHIM_INT(name) static const int shim_##name = (int)(name);

/* Named enums (FI_EP_RDM, FI_WAIT_FD, ...) need no help: bindgen makes constants of them. */

/* The version to request: that of these headers, for the library sizes what it writes by it. */
static const uint32_t shim_FI_API_VERSION = FI_VERSION(FI_MAJOR_VERSION, FI_MINOR_VERSION);
SHIM_U32(FI_MAJOR_VERSION)
SHIM_U32(FI_MINOR_VERSION)

/* Capabilities, and the access rights of a region, which share names. */
SHIM_U64(FI_MSG)
SHIM_U64(FI_RMA)
SHIM_U64(FI_SEND)
SHIM_U64(FI_RECV)
SHIM_U64(FI_READ)
SHIM_U64(FI_REMOTE_READ)
SHIM_U64(FI_TRANSMIT)

/* fi_getinfo flags */
SHIM_U64(FI_SOURCE)

/* Mode bits */
SHIM_U64(FI_CONTEXT)
SHIM_U64(FI_CONTEXT2)

/* Memory registration modes */
SHIM_INT(FI_MR_LOCAL)
SHIM_INT(FI_MR_VIRT_ADDR)
SHIM_INT(FI_MR_ALLOCATED)
SHIM_INT(FI_MR_PROV_KEY)
SHIM_INT(FI_MR_ENDPOINT)

SHIM_U64(FI_ADDR_UNSPEC)
SHIM_U64(FI_ADDR_NOTAVAIL)
SHIM_U64(FI_KEY_NOTAVAIL)

/* Address formats */
SHIM_U32(FI_SOCKADDR)
SHIM_U32(FI_SOCKADDR_IN)
SHIM_U32(FI_SOCKADDR_IN6)
SHIM_U32(FI_ADDR_STR)

/* Error numbers, positive; calls return them negated. */
SHIM_INT(FI_SUCCESS)
SHIM_INT(FI_EAGAIN)
SHIM_INT(FI_EAVAIL)
SHIM_INT(FI_ECANCELED)
SHIM_INT(FI_EINVAL)
SHIM_INT(FI_EIO)
SHIM_INT(FI_ENODATA)
SHIM_INT(FI_ENOMEM)
SHIM_INT(FI_ENOSYS)
SHIM_INT(FI_ETOOSMALL)
