/*
 * The offloads of the kernel, which are set up once, before the system call filter. What the kernel refuses is not
 * used: tx.c and rx.c go by the features that are in force.
 */
#ifndef TARTAN_OFFLOAD_H
#define TARTAN_OFFLOAD_H

#include "options.h"

/*
 * Sets up all queues and sockets and returns the bits FEATURE() that are in force on all of them. From here on
 * datagrams leave with DF (IP_PMTUDISC_DO). What any of them refused of REFUSALS is added to `refused`.
 */
uint32_t offload_open(const struct descriptors *tun, const struct descriptors *udp, uint32_t *refused);

#endif
