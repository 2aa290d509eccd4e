/*
 * The door of a running data process, `datapath.sock`: whoever may have its descriptors gets them in one message and
 * keeps the connection, whose end tells that the process is dead.
 */
#ifndef TARTAN_ANSWER_H
#define TARTAN_ANSWER_H

#include "options.h"

/*
 * Answers until `threads` workers have each written to `done`, an eventfd. The connections stay open to the end.
 */
void answer_serve(const struct options *options, const struct hello *hello, int done);

/* The message for these descriptors. */
void answer_prepare(struct hello *hello, const struct options *options);

#endif
