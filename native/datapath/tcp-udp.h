/* Where the fields of TCP and UDP headers lie (RFC 9293 section 3.1, RFC 768). */
#ifndef TARTAN_TCP_UDP_H
#define TARTAN_TCP_UDP_H

#include "ipv4.h"

/* Offsets from the start of the TCP or UDP header. */
#define L4_AT_PORTS 0u
#define TCP_AT_SEQUENCE 4u
#define TCP_AT_ACKNOWLEDGED 8u
#define TCP_AT_WORDS 12u /* the data offset, in the high four bits */
#define TCP_AT_FLAGS 13u
#define TCP_AT_WINDOW 14u
#define TCP_AT_CHECKSUM 16u
#define TCP_AT_URGENT 18u
#define TCP_HEADER_MIN 20u
#define UDP_AT_LENGTH 4u
#define UDP_AT_CHECKSUM 6u
#define UDP_HEADER_BYTES 8u

/* What the underlay adds to an inner packet: an IPv4 and a UDP header. */
#define OUTER_BYTES (IPV4_HEADER_BYTES + UDP_HEADER_BYTES)
/* What the kernel engine adds beside that: a VXLAN-GPE header (draft-ietf-nvo3-vxlan-gpe section 3.1). */
#define KERNEL_EXTRA_BYTES 8u

#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_RST 0x04u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u
#define TCP_URG 0x20u
#define TCP_ECE 0x40u
#define TCP_CWR 0x80u

static inline size_t tcp_header_bytes(const struct packet *p, size_t at)
{
	return (size_t)(packet_u8(p, at + TCP_AT_WORDS) >> 4) * 4;
}

#endif
