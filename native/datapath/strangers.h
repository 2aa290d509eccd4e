/* The last addresses that no peer has and that datagrams came from, for tartand to name (layout.h). */
#ifndef TARTAN_STRANGERS_H
#define TARTAN_STRANGERS_H

#include "../shared/layout.h"

/* Notes a datagram. A flood from many addresses costs a few loads each, and threads never wait for each other. */
void strangers_note(struct counters_file *counters, uint32_t address, uint64_t now_ns);

#endif
