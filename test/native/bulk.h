/* Shared by the tests of packets in bulk: TSO packets as the TUN hands them over, streams as a peer sends them. */
#ifndef TARTAN_BULK_H
#define TARTAN_BULK_H

#include "lab.h"
#include "pseudo-header.h"
#include "test.h"

#define TSO_PAYLOAD (9 * 1400 + 7)

struct tun_packet {
	struct vnet_header vnet;
	uint8_t *framed; /* virtio header included */
	struct packet p;
};

/* Makes a packet of TCP or UDP with TSO_PAYLOAD bytes in segments of 1400, as the kernel hands it over. */
static inline struct tun_packet tun_packet_make(struct suite *s, uint8_t protocol, uint32_t destination)
{
	const bool is_udp = protocol == PROTOCOL_UDP;
	const size_t transport = is_udp ? 8 : 20;
	struct tun_packet x = { .framed = malloc(VNET_HEADER_BYTES + 65535) };
	struct recipe r = { .source = OURS, .destination = destination, .protocol = protocol,
			    .total = 20 + transport + TSO_PAYLOAD, .fragment = FRAGMENT_DF };
	struct ipv4 h;

	x.p = packet_make(x.framed + VNET_HEADER_BYTES, &r);
	for (size_t at = 20; at < x.p.length; at++)
		packet_put_u8(&x.p, at, (uint8_t)suite_random(s));
	if (is_udp)
		packet_put_u16(&x.p, 24, (uint16_t)(x.p.length - 20));
	else
		packet_put_u16(&x.p, 32, 0x5018);
	ipv4_parse(&x.p, &h);
	packet_put_u16(&x.p, is_udp ? 26 : 36, pseudo_header_sum(&h, x.p.length - 20));
	x.vnet = (struct vnet_header){ .flags = VNET_NEEDS_CHECKSUM, .gso_type = is_udp ? GSO_UDP_L4 : GSO_TCP4,
				       .header_bytes = 40, .gso_size = 1400, .checksum_start = 20,
				       .checksum_offset = is_udp ? 6 : 16 };
	vnet_header_put(&x.vnet, x.framed);
	return x;
}

static inline void tun_packet_put(struct lab *l, const struct tun_packet *x)
{
	if (write(l->tun_outside, x->framed, VNET_HEADER_BYTES + x->p.length) < 0)
		abort();
}

/* Sends several packets of one length in one message, as a peer with UDP_SEGMENT does. */
static inline void bulk_send(struct lab *l, const uint8_t *bytes, size_t length, uint16_t each)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(l->self_port), .sin_addr.s_addr = htonl(SELF_IP) };
	union {
		char space[CMSG_SPACE(sizeof each)];
		struct cmsghdr aligned;
	} control = { .aligned = { .cmsg_len = CMSG_LEN(sizeof each), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT } };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = length };
	struct msghdr m = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1,
			    .msg_control = &control, .msg_controllen = sizeof control };

	memcpy(CMSG_DATA(&control.aligned), &each, sizeof each);
	if (sendmsg(l->peer, &m, 0) < 0)
		abort();
}

/* Makes `count` packets of `length`, those of TCP in sequence. Packet number `damaged` has a wrong checksum. */
static inline void stream_make(uint8_t *bytes, uint8_t protocol, size_t length, size_t count, size_t damaged)
{
	for (size_t i = 0; i < count; i++) {
		struct recipe r = { .source = THEIRS, .destination = OURS, .protocol = protocol, .total = length,
				    .fragment = FRAGMENT_DF };
		struct packet p = packet_make(bytes + i * length, &r);
		struct ipv4 h;
		for (size_t at = 40; at < length; at++)
			packet_put_u8(&p, at, (uint8_t)(at * (i + 3)));
		if (protocol == PROTOCOL_TCP) {
			packet_put_u32(&p, 24, (uint32_t)(i * (length - 40)));
			packet_put_u16(&p, 32, 0x5010);
		} else {
			packet_put_u16(&p, 24, (uint16_t)(length - 20));
		}
		ipv4_parse(&p, &h);
		packet_put_u16(&p, protocol == PROTOCOL_TCP ? 36 : 26, (uint16_t)~pseudo_header_packet_sum(&p, &h));
		if (i == damaged)
			packet_put_u8(&p, 45, (uint8_t)~packet_u8(&p, 45));
	}
}

#endif
