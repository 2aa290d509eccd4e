/* ICMP errors to senders behind the TUN: takes a token of the rate limit, builds the packet and writes it. */
#ifndef TARTAN_ICMP_REPLY_H
#define TARTAN_ICMP_REPLY_H

#include "worker.h"

/* Whether a reply about this packet may be sent; takes the token of it. Ask before the reply costs any work. */
bool icmp_reply_allow(struct worker *w, const struct ipv4 *about);

/*
 * The first host address of our subnet, which is the gateway of its containers. The tunnel address is a broadcast
 * address to kernels before 5.14, and they believe no error that comes from one.
 */
uint32_t icmp_reply_source(const struct self *self);

void icmp_reply_send(struct worker *w, const struct icmp_error *error, const struct packet *about,
		    const struct ipv4 *header);

#endif
