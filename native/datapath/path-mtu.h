/*
 * The path MTU to one peer, which is asked for when the underlay refused a datagram as too long. The kernel names it
 * only to a connected socket or in the error queue. A socket of its own is used, so that the forwarding sockets have no
 * error queue that they would have to empty.
 */
#ifndef TARTAN_PATH_MTU_H
#define TARTAN_PATH_MTU_H

#include "forward.h"

/* Opens a socket with the address of `udp`. Returns it, or -1: then no path MTU is ever known. */
int path_mtu_open(int udp);

/*
 * Sends the packet once more, which is expected to fail. Returns the length of the longest inner packet that the path
 * carries; 0 if it is not known; that of `p` if the packet was sent, because the path MTU has grown since.
 */
uint16_t path_mtu_ask(int socket, const struct peer_endpoint *endpoint, const struct packet *p);

#endif
