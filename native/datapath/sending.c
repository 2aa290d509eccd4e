/* See sending.h. */
#include "sending.h"
#include "icmp-reply.h"
#include "path-mtu.h"
#include <errno.h>

static enum counter counter_of(int err)
{
	switch (err) {
	case EPERM:
	case EACCES:
		return tx_error_perm;
	case ENETUNREACH:
	case EHOSTUNREACH:
	case ENETDOWN:
	case EADDRNOTAVAIL:
	case EINVAL:
		return tx_error_unreach;
	case ENOBUFS:
	case ENOMEM:
	case EAGAIN:
		return tx_error_nobufs;
	case EMSGSIZE:
		return tx_error_msgsize;
	default:
		return tx_error_other;
	}
}

static void count_sent(struct worker *w, size_t packets, size_t bytes)
{
	count_add(w->block, tx_ok, packets);
	count_add(w->block, tx_bytes, bytes);
}

/* Tells the inner sender how long a packet the path carries; it is less than the MTU of the tunnel. */
static void report_path_mtu(struct worker *w, const struct peer_endpoint *endpoint, const struct packet *p)
{
	struct ipv4 h;

	if (ipv4_parse(p, &h) != IPV4_SOUND || !h.dont_fragment || !icmp_may_reply(p, &h) || !icmp_reply_allow(w, &h))
		return;
	uint16_t mtu = path_mtu_ask(w->path_mtu, endpoint->address, endpoint->port, p);
	struct icmp_error needed = {
		.type = ICMP_UNREACHABLE,
		.code = ICMP_CODE_FRAGMENTATION_NEEDED,
		.mtu = mtu != 0 ? mtu : icmp_smaller_mtu(p->length),
	};
	icmp_reply_send(w, &needed, p, &h);
}

static void count_failed(struct worker *w, const struct tx_batch *b, size_t i, int err)
{
	const struct gso_run *r = &b->gso_run[i];

	count_add(w->block, counter_of(err), r->packets);
	if (err != EMSGSIZE)
		return;
	const struct packet first = tx_batch_packet(b, i, 0);
	report_path_mtu(w, &r->endpoint, &first);
}

static int send_one(const struct worker *w, const struct tx_batch *b, size_t i, const struct packet *p)
{
	struct iovec iov = { .iov_base = p->bytes, .iov_len = p->length };
	struct mmsghdr m = {
		.msg_hdr = {
			.msg_name = b->message[i].msg_hdr.msg_name,
			.msg_namelen = b->message[i].msg_hdr.msg_namelen,
			.msg_iov = &iov,
			.msg_iovlen = 1,
		},
	};
	int sent;

	do
		sent = sendmmsg(w->udp, &m, 1, MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent == 1 ? 0 : sent == 0 ? EIO : errno;
}

/* Sends packet by packet. If the first packet, which is as long as any, passes now, UDP_SEGMENT was the cause. */
static void send_without_gso(struct worker *w, const struct tx_batch *b, size_t i)
{
	const struct gso_run *r = &b->gso_run[i];
	bool is_reported = false;

	for (size_t number = 0; number < r->packets; number++) {
		const struct packet p = tx_batch_packet(b, i, number);
		int err = send_one(w, b, i, &p);
		if (err == 0 && number == 0) {
			gso_denied_add(&w->gso_denied, r->endpoint.address);
			count_add(w->block, tx_gso_off, 1);
		}
		if (err == 0) {
			count_sent(w, 1, p.length);
			continue;
		}
		count_add(w->block, counter_of(err), 1);
		if (err == EMSGSIZE && !is_reported)
			report_path_mtu(w, &r->endpoint, &p);
		is_reported = is_reported || err == EMSGSIZE;
	}
}

static bool may_be_gso(const struct gso_run *r, int err)
{
	return r->packets > 1 && (err == EIO || err == EINVAL || err == EMSGSIZE);
}

void tx_flush(struct worker *w, struct tx_batch *b)
{
	size_t i = 0;

	tx_batch_finish(b);
	while (i < b->messages) {
		int sent = sendmmsg(w->udp, &b->message[i], (unsigned int)(b->messages - i), MSG_DONTWAIT);
		int err = sent > 0 ? 0 : sent == 0 ? EIO : errno;
		for (; sent > 0; sent--, i++)
			count_sent(w, b->gso_run[i].packets, b->gso_run[i].bytes);
		/* The error is that of the first message left. Each pass of this loop disposes of one at least. */
		if (err == 0 || err == EINTR)
			continue;
		if (may_be_gso(&b->gso_run[i], err))
			send_without_gso(w, b, i);
		else
			count_failed(w, b, i, err);
		i++;
	}
	tx_batch_clear(b);
}
