/* See tx-batch.h. */
#include "tx-batch.h"
#include <netinet/udp.h>

static bool can_append(const struct gso_run *r, const struct peer_endpoint *endpoint, const struct packet *p)
{
	return !r->is_closed && r->endpoint.address == endpoint->address && r->endpoint.port == endpoint->port &&
	       r->endpoint.peer == endpoint->peer && p->length <= r->packet_bytes && p->length > 0 && r->packets < GSO_RUN_PACKETS_MAX &&
	       r->bytes + p->length <= GSO_RUN_BYTES_MAX;
}

static void add_iov(struct tx_batch *b, struct msghdr *m, const struct packet *p)
{
	struct iovec *last = m->msg_iovlen == 0 ? NULL : &m->msg_iov[m->msg_iovlen - 1];

	if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == p->bytes) {
		last->iov_len += p->length;
		return;
	}
	b->iov[b->iovs++] = (struct iovec){ .iov_base = p->bytes, .iov_len = p->length };
	m->msg_iovlen++;
}

static void begin_message(struct tx_batch *b, const struct peer_endpoint *endpoint, const struct packet *p,
			  bool use_gso)
{
	size_t i = b->messages++;

	b->gso_run[i] = (struct gso_run){ .endpoint = *endpoint, .packet_bytes = p->length, .is_closed = !use_gso };
	b->to[i] = tx_batch_address(endpoint);
	b->message[i] = (struct mmsghdr){
		.msg_hdr = {
			.msg_name = &b->to[i],
			.msg_namelen = sizeof b->to[i],
			.msg_iov = &b->iov[b->iovs],
		},
	};
}

void tx_batch_add(struct tx_batch *b, const struct peer_endpoint *endpoint, const struct packet *p, bool use_gso)
{
	bool follows = use_gso && b->messages > 0 && can_append(&b->gso_run[b->messages - 1], endpoint, p);

	if (!follows)
		begin_message(b, endpoint, p, use_gso);
	struct gso_run *r = &b->gso_run[b->messages - 1];
	add_iov(b, &b->message[b->messages - 1].msg_hdr, p);
	r->packets++;
	r->bytes += p->length;
	r->is_closed = r->is_closed || p->length < r->packet_bytes;
}

void tx_batch_finish(struct tx_batch *b)
{
	for (size_t i = 0; i < b->messages; i++) {
		struct msghdr *m = &b->message[i].msg_hdr;
		uint16_t bytes = (uint16_t)b->gso_run[i].packet_bytes;
		if (b->gso_run[i].packets == 1)
			continue;
		m->msg_control = &b->control[i];
		m->msg_controllen = sizeof b->control[i];
		struct cmsghdr *c = CMSG_FIRSTHDR(m);
		c->cmsg_len = CMSG_LEN(sizeof bytes);
		c->cmsg_level = IPPROTO_UDP;
		c->cmsg_type = UDP_SEGMENT;
		memcpy(CMSG_DATA(c), &bytes, sizeof bytes);
	}
}

struct packet tx_batch_packet(const struct tx_batch *b, size_t i, size_t number)
{
	const struct gso_run *r = &b->gso_run[i];
	const struct iovec *iov = b->message[i].msg_hdr.msg_iov;
	size_t at = number * r->packet_bytes;
	size_t left = r->bytes - at;

	/* All packets of a run but the last have one length, so no packet lies in two iovs. */
	for (; at >= iov->iov_len; iov++)
		at -= iov->iov_len;
	return (struct packet){ .bytes = (uint8_t *)iov->iov_base + at,
				.length = left < r->packet_bytes ? left : r->packet_bytes };
}
