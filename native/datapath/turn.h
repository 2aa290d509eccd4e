/*
 * What a thread does at the top of every turn of its loop: look at the header words of the routes file and adopt a
 * newly published table.
 */
#ifndef TARTAN_TURN_H
#define TARTAN_TURN_H

#include "worker.h"

enum turn {
	TURN_FORWARD, /* read a batch and pass it on, or drop and count it when a gate is shut */
	TURN_PARKED,  /* no MTU is set yet: read nothing, another process may still be reading */
	TURN_STOP,    /* drain */
};

enum turn turn_begin(struct worker *worker);

#endif
