/* What the process inherits: exactly the descriptors that its command line names, none of which blocks. */
#ifndef TARTAN_DESCRIPTORS_H
#define TARTAN_DESCRIPTORS_H

#include "options.h"

/* Closes every other descriptor but 0, 1 and 2. Returns 0 or an errno. */
int descriptors_take(const struct options *options);

#endif
