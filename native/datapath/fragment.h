/*
 * Cutting of IPv4 packets without DF into fragments, as a router does on a narrower link (RFC 791 section 3.2). A
 * fragment may be cut again. Pure.
 */
#ifndef TARTAN_FRAGMENT_H
#define TARTAN_FRAGMENT_H

#include "ipv4.h"

/*
 * Writes the fragment of `p` that begins `from` bytes into its payload. It is `longest` bytes or shorter, and the whole
 * rest if that fits. `h` is the sound header of `p`. The length of `into` is its room before and that of the fragment
 * after. Returns the bytes of payload in the fragment; 0, and nothing is written, if there is no room.
 */
size_t fragment_write(const struct packet *p, const struct ipv4 *h, size_t longest, size_t from, struct packet *into);

#endif
