/*
 * TUN -> underlay: reads until the queue is empty or the batch is full, decides about each packet, sends the batch
 * with one sendmmsg(2). A failure belongs to the one packet it happened to: it is counted and the rest goes on.
 */
#include "tun.h"
#include "turn.h"
#include "wait.h"
#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* The packets of a batch that leave for a peer, in the order read. */
struct outgoing {
	size_t count;
	struct packet packet[BATCH_PACKETS];
	struct ipv4 header[BATCH_PACKETS]; /* as received */
	struct sockaddr_in to[BATCH_PACKETS];
	struct iovec iov[BATCH_PACKETS];
	struct mmsghdr message[BATCH_PACKETS];
};

static void send_icmp(struct worker *w, const struct icmp_error *error, const struct packet *about,
		      const struct ipv4 *header)
{
	uint8_t room[VNET_HEADER_BYTES + ICMP_BYTES_MAX];
	struct packet reply = { .bytes = room + VNET_HEADER_BYTES, .length = ICMP_BYTES_MAX };

	if (!limiter_take(&w->limiter, header->source, w->now_ns)) {
		counters_add(w->block, icmp_limited, 1);
		return;
	}
	icmp_build(&reply, error, w->self.subnet, about, header);
	if (tun_write(w->tun, &reply) == TUN_WRITTEN)
		counters_add(w->block, icmp_sent, 1);
	else
		counters_add(w->block, tx_tun_errors, 1);
}

static void queue(struct outgoing *o, const struct packet *p, const struct outcome *out)
{
	size_t i = o->count++;

	o->packet[i] = *p;
	o->header[i] = out->header;
	o->to[i] = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(out->hop.port),
		.sin_addr.s_addr = htonl(out->hop.address),
	};
	o->iov[i] = (struct iovec){ .iov_base = p->bytes, .iov_len = p->length };
	o->message[i] = (struct mmsghdr){
		.msg_hdr = {
			.msg_name = &o->to[i],
			.msg_namelen = sizeof o->to[i],
			.msg_iov = &o->iov[i],
			.msg_iovlen = 1,
		},
	};
}

/* `bytes` came from the TUN, virtio header included. */
static void handle(struct worker *w, struct outgoing *o, struct packet *p, size_t bytes)
{
	struct vnet_header vnet;
	struct outcome out;

	if (bytes < VNET_HEADER_BYTES) {
		counters_add(w->block, tx_short, 1);
		return;
	}
	/* No offload was asked for, so a packet that still wants cutting or a checksum is not one we can send. */
	vnet_header_get(&vnet, p->bytes - VNET_HEADER_BYTES);
	if (!vnet_header_is_plain(&vnet)) {
		counters_add(w->block, tx_bad_len, 1);
		return;
	}
	p->length = bytes - VNET_HEADER_BYTES;
	switch (forward_outbound(p, &w->self, &w->routes, &out)) {
	case SEND_TO_PEER:
		queue(o, p, &out); /* counted when it was sent */
		return;
	case REPLY_ICMP:
		send_icmp(w, &out.error, p, &out.header);
		break;
	case WRITE_TO_TUN:
	case DROP:
		break;
	}
	counters_add(w->block, out.counter, 1);
}

/* Reads and decides; returns how many packets were read, or -1 when the TUN is broken and none was. */
static int read_batch(struct worker *w, struct outgoing *o)
{
	for (size_t i = 0; i < BATCH_PACKETS; i++) {
		struct packet p = { .bytes = batch_packet(&w->batch, i) };
		ssize_t bytes = read(w->tun, p.bytes - VNET_HEADER_BYTES, VNET_HEADER_BYTES + BATCH_PACKET_BYTES);
		if (bytes > 0)
			handle(w, o, &p, (size_t)bytes);
		else if (i > 0 || (bytes < 0 && (errno == EAGAIN || errno == EINTR)))
			return (int)i;
		else
			return -1;
	}
	return BATCH_PACKETS;
}

static enum counter send_error(int err)
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

static void count_failed(struct worker *w, const struct outgoing *o, size_t i, int err)
{
	const struct ipv4 *header = &o->header[i];

	counters_add(w->block, send_error(err), 1);
	if (err != EMSGSIZE || !header->dont_fragment || !icmp_may_answer(&o->packet[i], header))
		return;
	/* The underlay carries less than the tunnel MTU promises; how much less it does not say here. */
	struct icmp_error needed = {
		.type = ICMP_UNREACHABLE,
		.code = ICMP_CODE_FRAGMENTATION_NEEDED,
		.mtu = icmp_smaller_mtu(o->packet[i].length),
	};
	send_icmp(w, &needed, &o->packet[i], header);
}

static void count_sent(struct worker *w, const struct outgoing *o, size_t first, size_t sent)
{
	uint64_t bytes = 0;

	for (size_t i = first; i < first + sent; i++)
		bytes += o->packet[i].length;
	counters_add(w->block, tx_ok, sent);
	counters_add(w->block, tx_bytes, bytes);
}

static void send_batch(struct worker *w, struct outgoing *o)
{
	size_t i = 0;

	while (i < o->count) {
		int sent = sendmmsg(w->udp, &o->message[i], (unsigned int)(o->count - i), MSG_DONTWAIT);
		if (sent > 0) {
			count_sent(w, o, i, (size_t)sent);
			i += (size_t)sent;
		} else if (sent == 0 || errno != EINTR) {
			/* The error is of the first message left; each turn of this loop disposes of one at least. */
			count_failed(w, o, i, sent == 0 ? EIO : errno);
			i++;
		}
	}
	o->count = 0;
}

void loop_tx(struct worker *w)
{
	struct outgoing o = { .count = 0 };
	enum turn turn;

	while ((turn = turn_begin(w)) != TURN_STOP) {
		if (turn == TURN_PARKED) {
			wait_for(-1, w->wake, IDLE_MS);
			continue;
		}
		int count = read_batch(w, &o);
		send_batch(w, &o);
		if (count == BATCH_PACKETS)
			continue;
		if (count >= 0 && wait_for(w->tun, w->wake, IDLE_MS) != WAIT_BROKEN)
			continue;
		counters_add(w->block, tx_tun_errors, 1);
		wait_for(-1, w->wake, BROKEN_MS);
	}
}
