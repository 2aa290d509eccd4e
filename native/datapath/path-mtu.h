/*
 * The underlay's MTU to one peer, asked when it refused a datagram as too long: the kernel names it to a connected
 * socket or in the error queue only. A socket of its own asks, so that nobody else's errors ever wait in a queue that
 * the forwarding sockets would have to empty.
 */
#ifndef TARTAN_PATH_MTU_H
#define TARTAN_PATH_MTU_H

#include "packet.h"

/* A socket bound to the address of `udp`, or -1: then no MTU is ever known. */
int path_mtu_open(int udp);

/*
 * Sends the packet once more in the hope that it fails. Returns the longest inner packet that the path carries; 0 when
 * that is not known or, because the path has become wider since, the packet has left.
 */
uint16_t path_mtu_ask(int socket, uint32_t address, uint16_t port, const struct packet *p);

#endif
