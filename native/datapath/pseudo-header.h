/* Checksums of TCP and UDP, which cover a pseudo header too (RFC 9293 section 3.1, RFC 768). Pure. */
#ifndef TARTAN_PSEUDO_HEADER_H
#define TARTAN_PSEUDO_HEADER_H

#include "ipv4.h"

/* The sum of the pseudo header before `bytes` of TCP or UDP: what an unfinished checksum field holds. */
uint16_t pseudo_header_sum(const struct ipv4 *h, size_t bytes);

/* The sum of the pseudo header and all of the packet's TCP or UDP: 0xffff if the checksum in it is right. */
uint16_t pseudo_header_packet_sum(const struct packet *p, const struct ipv4 *h);

#endif
