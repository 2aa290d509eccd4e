/* For test programs that run until SIGTERM. */
#ifndef TARTAN_UNTIL_TOLD_H
#define TARTAN_UNTIL_TOLD_H

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t told_to_stop;

static void on_stop(int signal_number)
{
	(void)signal_number;
	told_to_stop = 1;
}

/* Without SA_RESTART: a call that waits ends, too. */
static void stop_when_told(void)
{
	const struct sigaction stop = { .sa_handler = on_stop };

	sigaction(SIGTERM, &stop, NULL);
}

#endif
