// SPDX-License-Identifier: GPL-2.0
/* What a change of mappings is, and the interval notifiers that are told of it. */
#include "shim.h"

#include <linux/notifier.h>

int coax_notifier_from_errno(int err)
{
	return notifier_from_errno(err);
}

bool coax_notifier_is_exclusive(const struct mmu_notifier_range *range, void *owner)
{
	return range->event == MMU_NOTIFY_EXCLUSIVE && range->owner == owner;
}

bool coax_notifier_is_unmap(const struct mmu_notifier_range *range)
{
	return range->event == MMU_NOTIFY_UNMAP;
}

bool coax_notifier_blockable(const struct mmu_notifier_range *range)
{
	return mmu_notifier_range_blockable(range);
}

void coax_notifier_set_seq(struct mmu_interval_notifier *sub, unsigned long seq)
{
	mmu_interval_set_seq(sub, seq);
}

bool coax_notifier_retry(struct mmu_interval_notifier *sub, unsigned long seq)
{
	return mmu_interval_read_retry(sub, seq);
}

unsigned long coax_notifier_start(const struct mmu_notifier_range *range)
{
	return range->start;
}

unsigned long coax_notifier_end(const struct mmu_notifier_range *range)
{
	return range->end;
}
