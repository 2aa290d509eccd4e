/* The JavaScript object of the kernel engine's programs and maps (kernel-maps.h); its type is in lib/native.ts. */
#include "addon.h"
#include "kernel-maps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const napi_type_tag kernel_tag = { 0x6b65726e656c7061, 0x7468206f66207472 };

static napi_value throw_failure(napi_env env, const struct kernel_failure *f)
{
	char step[128];

	if (f->log[0] == '\0')
		return throw_errno(env, f->err, f->step, NULL);
	snprintf(step, sizeof step, "loading the BPF program %s, which the verifier refused:", f->step);
	return throw_errno(env, f->err, step, f->log);
}

static napi_value throw_map(napi_env env, int err, const char *map)
{
	return err == 0 ? NULL : throw_errno(env, err, "bpf(2) on the map of", map);
}

/* The open programs and maps behind `this`; NULL after an exception. */
static struct kernel_path *path_of(napi_env env, napi_callback_info info, size_t count, napi_value *argv)
{
	struct kernel_path *p = read_this(env, info, count, argv, &kernel_tag, "a kernel path");

	if (p && !p->config)
		return throw_errno(env, EBADF, "the kernel path is closed", NULL), NULL;
	return p;
}

static bool read_member(napi_env env, napi_value object, const char *name, uint32_t *result)
{
	napi_value value;

	return ok(env, napi_get_named_property(env, object, name, &value)) && read_u32(env, value, name, result);
}

static uint32_t mask_of(uint32_t length)
{
	return length == 0 ? 0 : ~0u << (32 - length);
}

static bool read_length(napi_env env, napi_value object, const char *name, uint32_t *mask)
{
	uint32_t length;

	if (!read_member(env, object, name, &length))
		return false;
	if (length < 1 || length > 32)
		return throw_type(env, name, "a prefix length from 1 to 32"), false;
	*mask = mask_of(length);
	return true;
}

static bool read_lengths(napi_env env, napi_value object, struct kernel_config *c)
{
	napi_value list, value;
	uint32_t count = 0;

	if (!ok(env, napi_get_named_property(env, object, "lengths", &list)))
		return false;
	if (napi_get_array_length(env, list, &count) != napi_ok || count > KERNEL_LENGTHS_MAX)
		return throw_type(env, "lengths", "an array of at most four prefix lengths"), false;
	for (uint32_t i = 0; i < count; i++) {
		if (!ok(env, napi_get_element(env, list, i, &value)) || !read_u32(env, value, "lengths", &c->lengths[i]))
			return false;
		if (c->lengths[i] < 1 || c->lengths[i] > 32)
			return throw_type(env, "lengths", "prefix lengths from 1 to 32"), false;
	}
	return true;
}

static napi_value configure_method(napi_env env, napi_callback_info info)
{
	struct kernel_config c = { 0 };
	napi_value argv[1];
	struct kernel_path *p = path_of(env, info, 1, argv);

	if (!p || !read_member(env, argv[0], "network", &c.network) ||
	    !read_length(env, argv[0], "networkLength", &c.network_mask) ||
	    !read_member(env, argv[0], "subnet", &c.subnet) ||
	    !read_length(env, argv[0], "subnetLength", &c.subnet_mask) ||
	    !read_member(env, argv[0], "local", &c.local) || !read_member(env, argv[0], "vni", &c.vni) ||
	    !read_member(env, argv[0], "tunIndex", &c.tun) || !read_member(env, argv[0], "linkIndex", &c.link) ||
	    !read_member(env, argv[0], "flags", &c.flags) || !read_lengths(env, argv[0], &c))
		return NULL;
	c.fence = p->config->fence;
	c.forward_until_ns = p->config->forward_until_ns;
	*p->config = c;
	return NULL;
}

static napi_value set_deadline_method(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	uint64_t ns;
	bool lossless;
	struct kernel_path *p = path_of(env, info, 1, argv);

	if (!p)
		return NULL;
	if (napi_get_value_bigint_uint64(env, argv[0], &ns, &lossless) != napi_ok || !lossless)
		return throw_type(env, "the deadline", "a bigint of nanoseconds of CLOCK_BOOTTIME");
	__atomic_store_n(&p->config->forward_until_ns, ns, __ATOMIC_RELEASE);
	return NULL;
}

static napi_value set_fence_method(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	bool lost;
	struct kernel_path *p = path_of(env, info, 1, argv);

	if (p && read_bool(env, argv[0], "the fence", &lost))
		__atomic_store_n(&p->config->fence, lost, __ATOMIC_RELEASE);
	return NULL;
}

static bool read_peer_number(napi_env env, napi_value value, uint32_t *number)
{
	if (!read_u32(env, value, "the peer number", number))
		return false;
	return *number < KERNEL_PEERS_MAX || (throw_type(env, "the peer number", "below limits.peersMax"), false);
}

static bool read_state(napi_env env, napi_value value, uint32_t *state)
{
	static const char *const names[] = { [KERNEL_REFUSE] = "refuse", [KERNEL_USER] = "user", [KERNEL_KERNEL] = "kernel" };
	char name[8];

	if (!read_text(env, value, "state", name, sizeof name))
		return false;
	for (*state = KERNEL_REFUSE; *state <= KERNEL_KERNEL; (*state)++) {
		if (strcmp(names[*state], name) == 0)
			return true;
	}
	return throw_type(env, "state", "refuse, user or kernel"), false;
}

static bool read_identity(napi_env env, napi_value object, uint32_t identity[4])
{
	napi_typedarray_type type;
	napi_value value;
	size_t length;
	void *data;

	if (!ok(env, napi_get_named_property(env, object, "identity", &value)))
		return false;
	if (napi_get_typedarray_info(env, value, &type, &length, &data, NULL, NULL) != napi_ok ||
	    type != napi_uint32_array || length != 4)
		return throw_type(env, "identity", "a Uint32Array of four numbers"), false;
	memcpy(identity, data, 4 * sizeof *identity);
	return true;
}

static napi_value set_peer_method(napi_env env, napi_callback_info info)
{
	struct kernel_peer peer = { 0 };
	napi_value argv[2], state;
	uint32_t number;
	struct kernel_path *p = path_of(env, info, 2, argv);

	if (!p || !read_peer_number(env, argv[0], &number) || !read_member(env, argv[1], "remote", &peer.remote) ||
	    !read_member(env, argv[1], "local", &peer.local) || !read_member(env, argv[1], "mtu", &peer.mtu) ||
	    !ok(env, napi_get_named_property(env, argv[1], "state", &state)) || !read_state(env, state, &peer.state) ||
	    !read_identity(env, argv[1], peer.identity))
		return NULL;
	if (peer.remote == 0)
		return throw_type(env, "remote", "an address");
	return throw_map(env, kernel_path_set_peer(p, number, &peer), "endpoints");
}

static napi_value set_state_method(napi_env env, napi_callback_info info)
{
	uint32_t number, state;
	napi_value argv[2];
	struct kernel_path *p = path_of(env, info, 2, argv);

	if (p && read_peer_number(env, argv[0], &number) && read_state(env, argv[1], &state))
		kernel_path_set_state(p, number, state);
	return NULL;
}

static napi_value record_method(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	uint32_t number;
	struct kernel_path *p = path_of(env, info, 1, argv);

	if (p && read_peer_number(env, argv[0], &number))
		kernel_path_record(p, number);
	return NULL;
}

static napi_value clear_peer_method(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	uint32_t number;
	struct kernel_path *p = path_of(env, info, 1, argv);

	if (!p || !read_peer_number(env, argv[0], &number))
		return NULL;
	return throw_map(env, kernel_path_clear_peer(p, number), "endpoints or traffic");
}

static bool read_prefix(napi_env env, const napi_value *argv, struct kernel_prefix *prefix)
{
	if (!read_u32(env, argv[0], "the address", &prefix->address) ||
	    !read_u32(env, argv[1], "the length", &prefix->length))
		return false;
	if (prefix->length < 1 || prefix->length > 32 || (prefix->address & ~mask_of(prefix->length)) != 0)
		return throw_type(env, "a prefix", "of length 1 to 32, without host bits"), false;
	return true;
}

static napi_value set_prefix_method(napi_env env, napi_callback_info info)
{
	struct kernel_prefix prefix;
	napi_value argv[3];
	uint32_t number;
	struct kernel_path *p = path_of(env, info, 3, argv);

	if (!p || !read_prefix(env, argv, &prefix) || !read_peer_number(env, argv[2], &number))
		return NULL;
	return throw_map(env, kernel_path_set_prefix(p, prefix, number), "prefixes");
}

static napi_value remove_prefix_method(napi_env env, napi_callback_info info)
{
	struct kernel_prefix prefix;
	napi_value argv[2];
	struct kernel_path *p = path_of(env, info, 2, argv);

	if (!p || !read_prefix(env, argv, &prefix))
		return NULL;
	return throw_map(env, kernel_path_remove_prefix(p, prefix), "prefixes");
}

static napi_value counters_method(napi_env env, napi_callback_info info)
{
	static const char *const names[COUNTER_COUNT] = {
#define COUNTER_NAME(name) #name,
		COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
	};
	struct kernel_counters sum;
	struct kernel_path *p = path_of(env, info, 0, NULL);
	const int err = p ? kernel_path_counters(p, &sum) : 0;
	napi_value object = p && err == 0 ? new_object(env) : NULL;

	if (err != 0)
		return throw_map(env, err, "counters");
	for (int i = 0; object && i < COUNTER_COUNT; i++)
		add_number(env, object, names[i], (double)sum.of[i]);
	return object ? finished(env, object) : NULL;
}

struct rows {
	napi_env env;
	napi_value list;
	uint32_t count;
};

static void add_bigint(napi_env env, napi_value object, const char *name, uint64_t value)
{
	napi_value bigint;

	if (ok(env, napi_create_bigint_uint64(env, value, &bigint)))
		ok(env, napi_set_named_property(env, object, name, bigint));
}

static bool add_row(void *context, uint32_t number, const struct kernel_traffic *t)
{
	struct rows *rows = context;
	napi_env env = rows->env;
	napi_value row = new_object(env);

	if (!row)
		return false;
	add_number(env, row, "peer", number);
	add_number(env, row, "sentPackets", (double)t->sent_packets);
	add_number(env, row, "sentBytes", (double)t->sent_bytes);
	add_number(env, row, "receivedPackets", (double)t->received_packets);
	add_number(env, row, "receivedBytes", (double)t->received_bytes);
	add_bigint(env, row, "sentNs", t->sent_ns);
	add_bigint(env, row, "heardNs", t->heard_ns);
	add_bigint(env, row, "answeredNs", t->answered_ns);
	add_number(env, row, "answeredSequence", t->answered_sequence);
	add_bigint(env, row, "answeredOpaque", t->answered_opaque);
	return finished(env, row) && ok(env, napi_set_element(env, rows->list, rows->count++, row));
}

static napi_value traffic_method(napi_env env, napi_callback_info info)
{
	struct rows rows = { .env = env };
	struct kernel_path *p = path_of(env, info, 0, NULL);

	if (!p || !ok(env, napi_create_array(env, &rows.list)))
		return NULL;
	const int err = kernel_path_traffic(p, add_row, &rows);
	return err == 0 ? finished(env, rows.list) : throw_map(env, err, "traffic");
}

#define TRIAL_ROOM 4096u
#define ETHERNET_BYTES 14u

static bool read_key(napi_env env, napi_value object, struct kernel_key *key)
{
	return read_member(env, object, "remote", &key->remote) && read_member(env, object, "local", &key->local) &&
	       read_member(env, object, "vni", &key->vni);
}

static napi_value test_method(napi_env env, napi_callback_info info)
{
	uint8_t bytes[TRIAL_ROOM] = { 0 };
	struct bpf_trial trial = { .bytes = bytes, .room = sizeof bytes };
	struct kernel_failure failure;
	struct kernel_key key;
	char program[16];
	napi_value argv[3], result, packet;
	napi_valuetype type;
	size_t length;
	void *data;
	struct kernel_path *p = path_of(env, info, 3, argv);

	if (!p || !read_text(env, argv[0], "the program", program, sizeof program) ||
	    !ok(env, napi_typeof(env, argv[2], &type)))
		return NULL;
	const bool is_inbound = strcmp(program, "inbound") == 0, has_key = type != napi_undefined;
	if (!is_inbound && strcmp(program, "outbound") != 0)
		return throw_type(env, "the program", "outbound or inbound");
	if (napi_get_buffer_info(env, argv[1], &data, &length) != napi_ok || length > sizeof bytes - ETHERNET_BYTES)
		return throw_type(env, "the packet", "a Buffer of at most 4,082 bytes");
	if (has_key && !read_key(env, argv[2], &key))
		return NULL;
	/* ETH_P_IP. The kernel tries no IPv4 packet without a whole header, so a shorter one is of no type. */
	bytes[12] = length < 20 ? 0 : 8;
	memcpy(bytes + ETHERNET_BYTES, data, length);
	trial.length = (uint32_t)length + ETHERNET_BYTES;
	if (!kernel_path_try(p, is_inbound ? KERNEL_INBOUND : KERNEL_OUTBOUND, &trial, has_key ? &key : NULL, &failure))
		return throw_failure(env, &failure);
	result = new_object(env);
	if (!result || trial.length < ETHERNET_BYTES ||
	    !ok(env, napi_create_buffer_copy(env, trial.length - ETHERNET_BYTES, bytes + ETHERNET_BYTES, NULL, &packet)))
		return NULL;
	add_number(env, result, "verdict", (int32_t)trial.verdict);
	ok(env, napi_set_named_property(env, result, "packet", packet));
	return finished(env, result);
}

static napi_value chooses_source_method(napi_env env, napi_callback_info info)
{
	struct kernel_failure failure;
	napi_value result;
	bool chooses;
	struct kernel_path *p = path_of(env, info, 0, NULL);

	if (!p)
		return NULL;
	if (!kernel_path_chooses_source(p, &chooses, &failure))
		return throw_failure(env, &failure);
	return ok(env, napi_get_boolean(env, chooses, &result)) ? result : NULL;
}

static napi_value close_method(napi_env env, napi_callback_info info)
{
	struct kernel_path *p = read_this(env, info, 0, NULL, &kernel_tag, "a kernel path");

	if (p)
		kernel_path_close(p);
	return NULL;
}

static void finalize(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	kernel_path_close(data);
	free(data);
}

static void add_methods(napi_env env, napi_value object)
{
	add_function(env, object, "configure", configure_method);
	add_function(env, object, "setDeadline", set_deadline_method);
	add_function(env, object, "setFence", set_fence_method);
	add_function(env, object, "setPeer", set_peer_method);
	add_function(env, object, "setState", set_state_method);
	add_function(env, object, "recordFlows", record_method);
	add_function(env, object, "clearPeer", clear_peer_method);
	add_function(env, object, "setPrefix", set_prefix_method);
	add_function(env, object, "removePrefix", remove_prefix_method);
	add_function(env, object, "traffic", traffic_method);
	add_function(env, object, "counters", counters_method);
	add_function(env, object, "choosesSource", chooses_source_method);
	add_function(env, object, "test", test_method);
	add_function(env, object, "close", close_method);
}

static napi_value load_kernel_path(napi_env env, napi_callback_info info)
{
	struct kernel_failure failure;
	struct kernel_path *p = malloc(sizeof *p);
	napi_value object = new_object(env);

	(void)info;
	if (!p || !object || !kernel_path_open(p, &failure)) {
		const bool was_refused = p && object;
		free(p);
		return was_refused ? throw_failure(env, &failure) : NULL;
	}
	if (!ok(env, napi_wrap(env, object, p, finalize, NULL, NULL))) {
		kernel_path_close(p);
		free(p);
		return NULL;
	}
	ok(env, napi_type_tag_object(env, object, &kernel_tag));
	add_number(env, object, "outbound", p->outbound);
	add_number(env, object, "inbound", p->inbound);
	add_methods(env, object);
	return finished(env, object);
}

void kernel_path_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "loadKernelPath", load_kernel_path);
}
