#include "shim.h"

#include <stdlib.h>
#include <string.h>

int shim_fi_close(struct fid *fid)
{
	return fi_close(fid);
}

int shim_fi_domain(struct fid_fabric *fabric, struct fi_info *info, struct fid_domain **domain)
{
	return fi_domain(fabric, info, domain, NULL);
}

int shim_fi_trywait(struct fid_fabric *fabric, struct fid **fids, int count)
{
	return fi_trywait(fabric, fids, count);
}

int shim_fi_cq_open(struct fid_domain *domain, struct fi_cq_attr *attr, struct fid_cq **cq)
{
	return fi_cq_open(domain, attr, cq, NULL);
}

ssize_t shim_fi_cq_read(struct fid_cq *cq, void *entries, size_t count)
{
	return fi_cq_read(cq, entries, count);
}

ssize_t shim_fi_cq_readerr(struct fid_cq *cq, struct fi_cq_err_entry *entry, uint64_t flags)
{
	return fi_cq_readerr(cq, entry, flags);
}

const char *shim_fi_cq_strerror(struct fid_cq *cq, int prov_errno, const void *err_data,
                                char *text, size_t len)
{
	return fi_cq_strerror(cq, prov_errno, err_data, text, len);
}

int shim_fi_cq_descriptor(struct fid_cq *cq, int *descriptor)
{
	return fi_control(&cq->fid, FI_GETWAIT, descriptor);
}

int shim_fi_av_open(struct fid_domain *domain, struct fi_av_attr *attr, struct fid_av **av)
{
	return fi_av_open(domain, attr, av, NULL);
}

int shim_fi_av_insert(struct fid_av *av, const void *address, size_t count, fi_addr_t *peers,
                      uint64_t flags)
{
	return fi_av_insert(av, address, count, peers, flags, NULL);
}

int shim_fi_av_remove(struct fid_av *av, fi_addr_t *peers, size_t count, uint64_t flags)
{
	return fi_av_remove(av, peers, count, flags);
}

int shim_fi_endpoint(struct fid_domain *domain, struct fi_info *info, struct fid_ep **ep)
{
	return fi_endpoint(domain, info, ep, NULL);
}

int shim_fi_ep_bind(struct fid_ep *ep, struct fid *fid, uint64_t flags)
{
	return fi_ep_bind(ep, fid, flags);
}

int shim_fi_enable(struct fid_ep *ep)
{
	return fi_enable(ep);
}

int shim_fi_getname(struct fid *fid, void *address, size_t *len)
{
	return fi_getname(fid, address, len);
}

int shim_fi_mr_reg(struct fid_domain *domain, const void *bytes, size_t len, uint64_t access,
                   uint64_t requested_key, struct fid_mr **mr)
{
	return fi_mr_reg(domain, bytes, len, access, 0, requested_key, 0, mr, NULL);
}

int shim_fi_mr_bind(struct fid_mr *mr, struct fid *fid, uint64_t flags)
{
	return fi_mr_bind(mr, fid, flags);
}

int shim_fi_mr_enable(struct fid_mr *mr)
{
	return fi_mr_enable(mr);
}

void *shim_fi_mr_desc(struct fid_mr *mr)
{
	return fi_mr_desc(mr);
}

uint64_t shim_fi_mr_key(struct fid_mr *mr)
{
	return fi_mr_key(mr);
}

ssize_t shim_fi_recv(struct fid_ep *ep, void *bytes, size_t len, void *desc, fi_addr_t from,
                     void *context)
{
	return fi_recv(ep, bytes, len, desc, from, context);
}

ssize_t shim_fi_send(struct fid_ep *ep, const void *bytes, size_t len, void *desc, fi_addr_t to,
                     void *context)
{
	return fi_send(ep, bytes, len, desc, to, context);
}

ssize_t shim_fi_read(struct fid_ep *ep, void *bytes, size_t len, void *desc, fi_addr_t from,
                     uint64_t address, uint64_t key, void *context)
{
	return fi_read(ep, bytes, len, desc, from, address, key, context);
}

int shim_fi_set_name(char **name, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -FI_ENOMEM;
	free(*name);
	*name = copy;
	return 0;
}

#define SIZE(type)                                                                                 \
	if (!strcmp(name, #type))                                                                  \
		return sizeof(struct type);
#define OFFSET(type, field)                                                                        \
	if (!strcmp(name, #type "." #field))                                                       \
		return offsetof(struct type, field);

size_t shim_fi_layout(const char *name)
{
	SIZE(fi_context2)

	SIZE(fi_info)
	OFFSET(fi_info, next)
	OFFSET(fi_info, caps)
	OFFSET(fi_info, mode)
	OFFSET(fi_info, addr_format)
	OFFSET(fi_info, tx_attr)
	OFFSET(fi_info, rx_attr)
	OFFSET(fi_info, ep_attr)
	OFFSET(fi_info, domain_attr)
	OFFSET(fi_info, fabric_attr)

	SIZE(fi_tx_attr)
	OFFSET(fi_tx_attr, size)
	SIZE(fi_rx_attr)
	OFFSET(fi_rx_attr, size)
	SIZE(fi_ep_attr)
	OFFSET(fi_ep_attr, type)
	OFFSET(fi_ep_attr, max_msg_size)
	SIZE(fi_domain_attr)
	OFFSET(fi_domain_attr, name)
	OFFSET(fi_domain_attr, threading)
	OFFSET(fi_domain_attr, av_type)
	OFFSET(fi_domain_attr, mr_mode)
	OFFSET(fi_domain_attr, mr_key_size)
	SIZE(fi_fabric_attr)
	OFFSET(fi_fabric_attr, name)
	OFFSET(fi_fabric_attr, prov_name)

	SIZE(fi_av_attr)
	OFFSET(fi_av_attr, type)
	SIZE(fi_cq_attr)
	OFFSET(fi_cq_attr, size)
	OFFSET(fi_cq_attr, format)
	OFFSET(fi_cq_attr, wait_obj)
	SIZE(fi_cq_msg_entry)
	OFFSET(fi_cq_msg_entry, op_context)
	OFFSET(fi_cq_msg_entry, flags)
	OFFSET(fi_cq_msg_entry, len)
	SIZE(fi_cq_err_entry)
	OFFSET(fi_cq_err_entry, op_context)
	OFFSET(fi_cq_err_entry, err)
	OFFSET(fi_cq_err_entry, prov_errno)
	OFFSET(fi_cq_err_entry, err_data)
	OFFSET(fi_cq_err_entry, err_data_size)

	return SIZE_MAX;
}
