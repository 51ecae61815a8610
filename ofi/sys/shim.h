/*
 * libfabric's calls are mostly `static inline` functions over tables of pointers; these are real
 * functions for the ones that Copper makes, and nothing more.
 */
#ifndef COPPER_LIBFABRIC_SHIM_H
#define COPPER_LIBFABRIC_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

/* Any object */
int shim_fi_close(struct fid *fid);

/* Fabric and domain */
int shim_fi_domain(struct fid_fabric *fabric, struct fi_info *info, struct fid_domain **domain);
int shim_fi_trywait(struct fid_fabric *fabric, struct fid **fids, int count);

/* Completion queue */
int shim_fi_cq_open(struct fid_domain *domain, struct fi_cq_attr *attr, struct fid_cq **cq);
ssize_t shim_fi_cq_read(struct fid_cq *cq, void *entries, size_t count);
ssize_t shim_fi_cq_readerr(struct fid_cq *cq, struct fi_cq_err_entry *entry, uint64_t flags);
const char *shim_fi_cq_strerror(struct fid_cq *cq, int prov_errno, const void *err_data,
                                char *text, size_t len);
/* FI_GETWAIT of a queue opened with FI_WAIT_FD */
int shim_fi_cq_descriptor(struct fid_cq *cq, int *descriptor);

/* Address vector */
int shim_fi_av_open(struct fid_domain *domain, struct fi_av_attr *attr, struct fid_av **av);
int shim_fi_av_insert(struct fid_av *av, const void *address, size_t count, fi_addr_t *peers,
                      uint64_t flags);
int shim_fi_av_remove(struct fid_av *av, fi_addr_t *peers, size_t count, uint64_t flags);

/* Endpoint */
int shim_fi_endpoint(struct fid_domain *domain, struct fi_info *info, struct fid_ep **ep);
int shim_fi_ep_bind(struct fid_ep *ep, struct fid *fid, uint64_t flags);
int shim_fi_enable(struct fid_ep *ep);
int shim_fi_getname(struct fid *fid, void *address, size_t *len);

/* Memory region */
int shim_fi_mr_reg(struct fid_domain *domain, const void *bytes, size_t len, uint64_t access,
                   uint64_t requested_key, struct fid_mr **mr);
int shim_fi_mr_bind(struct fid_mr *mr, struct fid *fid, uint64_t flags);
int shim_fi_mr_enable(struct fid_mr *mr);
void *shim_fi_mr_desc(struct fid_mr *mr);
uint64_t shim_fi_mr_key(struct fid_mr *mr);

/* Transfers */
ssize_t shim_fi_recv(struct fid_ep *ep, void *bytes, size_t len, void *desc, fi_addr_t from,
                     void *context);
ssize_t shim_fi_send(struct fid_ep *ep, const void *bytes, size_t len, void *desc, fi_addr_t to,
                     void *context);
ssize_t shim_fi_read(struct fid_ep *ep, void *bytes, size_t len, void *desc, fi_addr_t from,
                     uint64_t address, uint64_t key, void *context);

/*
 * Replaces a string that fi_freeinfo will free, by a copy from the allocator that it frees with.
 * Returns 0, or -FI_ENOMEM.
 */
int shim_fi_set_name(char **name, const char *text);

/*
 * The size of "struct" or the offset of "struct.field" as the C compiler sees it; SIZE_MAX for a
 * name that is not in the list. For the test that compares it with Rust's view.
 */
size_t shim_fi_layout(const char *name);

#endif
