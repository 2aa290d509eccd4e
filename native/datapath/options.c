/* Parsing of argv; see options.h. */
#include "options.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#define FIXED_ARGUMENTS 7

/* A decimal number from `low` to INT_MAX and nothing after it. */
static bool parse_number(const char *text, long low, int *value)
{
	char *end;

	errno = 0;
	long number = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || number < low || number > INT_MAX)
		return false;
	*value = (int)number;
	return true;
}

/* Numbers up to -1 or the end; returns where to go on, or NULL. */
static char **parse_list(char **at, char **end, size_t limit, struct descriptors *list)
{
	for (list->count = 0; at < end; at++) {
		int number;
		if (!parse_number(*at, -1, &number))
			return NULL;
		if (number == -1)
			return at + 1;
		if (list->count == limit)
			return NULL;
		list->fd[list->count++] = number;
	}
	return at;
}

bool options_parse(struct options *o, int argc, char **argv)
{
	int fixed[FIXED_ARGUMENTS];
	char **end = argv + argc;

	if (argc <= 1 + FIXED_ARGUMENTS)
		return false;
	for (int i = 0; i < FIXED_ARGUMENTS; i++)
		if (!parse_number(argv[1 + i], 0, &fixed[i]))
			return false;
	*o = (struct options){
		.status = fixed[0],
		.routes = fixed[1],
		.counters = fixed[2],
		.listen = fixed[3],
		.uid = (uid_t)fixed[4],
		.gid = (gid_t)fixed[5],
		.owner = (uid_t)fixed[6],
	};
	char **at = parse_list(argv + 1 + FIXED_ARGUMENTS, end, QUEUES_MAX, &o->tun);
	if (at != NULL)
		at = parse_list(at, end, QUEUES_MAX, &o->udp);
	if (at != NULL)
		at = parse_list(at, end, THREADS_MAX, &o->wake);
	return at == end && o->tun.count > 0 && o->udp.count == o->tun.count &&
	       o->wake.count == 2 * options_lanes(o) + (o->tun.count > 1);
}
