/* SPDX-License-Identifier: GPL-2.0-only */
/* How many incidents a user may have: a pure function, as mg_policy.h, tested with it. */
#ifndef MG_RATE_H
#define MG_RATE_H

#include "mg_policy.h"

#define MG_RATE_USERS 64
#define MG_MINUTE_NS 60000000000ull

/*
 * Each user's budget of incidents, full at first and filled again within a minute. `full_ns` is
 * when it will be full: every incident moves it by a minute's share, and a budget that would need
 * more than a minute to fill is empty. A user without an entry, or whose entry was given to another
 * (the one that is full soonest), has a full one: forgetting never takes anything away, so nobody's
 * storm is paid by others.
 */
struct mg_rates {
	struct {
		u64 full_ns; /* 0: the entry is free */
		u32 uid;
	} user[MG_RATE_USERS];
};

static inline bool mg_rate_take(struct mg_rates *rates, u32 uid, u32 per_minute, u64 now_ns)
{
	u64 share, full = now_ns;
	u32 i, at = 0;

	if (per_minute == 0)
		return false;
	for (i = 0; i < MG_RATE_USERS; i++) {
		if (rates->user[i].full_ns && rates->user[i].uid == uid) {
			/* Should a caller's clock run backwards, it is empty at worst. */
			if (rates->user[i].full_ns > now_ns + MG_MINUTE_NS)
				rates->user[i].full_ns = now_ns + MG_MINUTE_NS;
			at = i;
			full = rates->user[i].full_ns;
			break;
		}
		if (rates->user[i].full_ns < rates->user[at].full_ns)
			at = i;
	}
	if (full < now_ns)
		full = now_ns;
	share = MG_MINUTE_NS / per_minute;
	if (full + share > now_ns + MG_MINUTE_NS)
		return false;
	rates->user[at].uid = uid;
	rates->user[at].full_ns = full + share;
	return true;
}

#endif
