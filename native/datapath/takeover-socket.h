/*
 * The takeover socket of a running data process, `datapath.sock`: a program of the owner connects and receives all
 * descriptors, once in the form of every layout and once by their types, and can take the process over with them. The
 * connection stays open; its end means that the process is dead.
 */
#ifndef TARTAN_TAKEOVER_SOCKET_H
#define TARTAN_TAKEOVER_SOCKET_H

#include "options.h"

/*
 * Serves connections until each of the hello's `threads` has written to `done`, an eventfd. The connections stay open
 * until the process ends.
 */
void takeover_socket_serve(const struct options *options, const struct hello *hello, int done);

/* Fills in the first message that goes with these descriptors. */
void takeover_socket_hello(struct hello *hello, const struct options *options);

#endif
