/*
 * The Node-API addon: the init function of each file adds its functions to `exports`. The addon is built with gcc and
 * the headers of the package node-api-headers, without node-gyp.
 */
#include "addon.h"
#include "../shared/layout.h"

static napi_value init(napi_env env, napi_value exports)
{
	add_string(env, exports, "build", TARTAN_BUILD);
	add_number(env, exports, "layoutVersion", LAYOUT_VERSION);
	tun_init(env, exports);
	udp_init(env, exports);
	steering_init(env, exports);
	table_init(env, exports);
	adopt_init(env, exports);
	netlink_init(env, exports);
	watch_init(env, exports);
	system_init(env, exports);
	return exports;
}

NAPI_MODULE(NODE_GYP_MODULE_NAME, init)
