/*
 * Where things are in TCP and UDP headers, and their checksums over pseudo header, header and payload (RFC 9293
 * section 3.1, RFC 768). Pure.
 */
#ifndef TARTAN_TRANSPORT_H
#define TARTAN_TRANSPORT_H

#include "ipv4.h"

/* Offsets from the transport header. */
#define TRANSPORT_AT_PORTS 0u
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

/* The sum of the pseudo header of a transport part of so many bytes: what a checksum field holds that is to be finished. */
uint16_t transport_pseudo_sum(const struct ipv4 *h, size_t bytes);

/* The sum of the whole transport part with its pseudo header: 0xffff when the checksum in it is right. */
uint16_t transport_sum(const struct packet *p, const struct ipv4 *h);

#endif
