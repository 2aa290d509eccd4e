/*
 * What the kernel offers for packets in bulk, asked for once while system calls are still free. What it refuses is done
 * without: the loops look at the features that came back.
 */
#ifndef TARTAN_OFFLOAD_H
#define TARTAN_OFFLOAD_H

#include "options.h"

/*
 * Sets up all queues and sockets alike and returns the bits FEATURE() that are in force on all of them. The underlay's
 * datagrams leave with DF from here on (IP_PMTUDISC_DO).
 */
uint32_t offload_open(const struct descriptors *tun, const struct descriptors *udp);

#endif
