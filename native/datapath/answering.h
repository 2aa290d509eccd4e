/* ICMP errors to senders behind the TUN: the rate limit asked, the packet built and written. */
#ifndef TARTAN_ANSWERING_H
#define TARTAN_ANSWERING_H

#include "worker.h"

/* To be asked before work is done for an answer; it takes the token of the answer. */
bool answering_may(struct worker *w, const struct ipv4 *about);

void answering_send(struct worker *w, const struct icmp_error *error, const struct packet *about,
		    const struct ipv4 *header);

#endif
