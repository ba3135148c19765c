// SPDX-License-Identifier: GPL-2.0
/* Limits of device memory by cgroup. */
#include "shim.h"

#include <linux/cgroup.h>
#include <linux/kthread.h>

#if IS_ENABLED(CONFIG_CGROUP_DMEM)

/* A region as it is registered. */
struct coax_dmem {
	struct dmem_cgroup_region *region;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0)
	struct dmem_cgroup_ops ops;
#endif
};

static struct dmem_cgroup_region *register_region(struct coax_dmem *dmem, u64 size, const char *name,
						  coax_dmem_reclaim_fn *reclaim, void *data)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0)
	struct dmem_cgroup_init init = { .size = size, .ops = &dmem->ops, .reclaim_priv = data };

	dmem->ops.reclaim = reclaim;
	return dmem_cgroup_register_region(&init, "%s", name);
#else
	/* Here the kernel takes no limit below what is charged. */
	return dmem_cgroup_register_region(size, "%s", name);
#endif
}

struct coax_dmem *coax_dmem_register(u64 size, const char *name, coax_dmem_reclaim_fn *reclaim, void *data)
{
	struct coax_dmem *dmem = kzalloc(sizeof(*dmem), GFP_KERNEL);
	struct dmem_cgroup_region *region;

	if (!dmem)
		return ERR_PTR(-ENOMEM);
	region = register_region(dmem, size, name, reclaim, data);
	if (IS_ERR(region)) {
		kfree(dmem);
		return ERR_CAST(region);
	}
	dmem->region = region;
	return dmem;
}

void coax_dmem_unregister(struct coax_dmem *dmem)
{
	dmem_cgroup_unregister_region(dmem->region);
	kfree(dmem);
}

u64 coax_dmem_group(void)
{
	struct cgroup_subsys_state *css;
	u64 number;

	rcu_read_lock();
	css = task_css(current, dmem_cgrp_id);
	/* Other than the identifier this is never another group's later. */
	number = css->parent ? css->serial_nr : 0;
	rcu_read_unlock();
	return number;
}

struct attach_work {
	struct kthread_work work;
	struct task_struct *to;
	int result;
};

static void attach(struct kthread_work *work)
{
	struct attach_work *attach = container_of(work, struct attach_work, work);

	attach->result = cgroup_attach_task_all(attach->to, current);
}

struct kthread_worker *coax_dmem_charger(void)
{
	struct attach_work attach_work = { .to = current };
	struct kthread_worker *worker = kthread_run_worker(0, "coax_charge");

	if (IS_ERR(worker))
		return worker;
	attach_work.work.func = attach;
	INIT_LIST_HEAD(&attach_work.work.node);
	kthread_queue_work(worker, &attach_work.work);
	kthread_flush_work(&attach_work.work);
	if (!attach_work.result)
		return worker;
	kthread_destroy_worker(worker);
	return ERR_PTR(attach_work.result);
}

struct charge_work {
	struct kthread_work work;
	struct dmem_cgroup_region *region;
	struct dmem_cgroup_pool_state *pool;
	u64 unit;
	unsigned int units;
};

static void charge(struct kthread_work *work)
{
	struct charge_work *charge = container_of(work, struct charge_work, work);
	struct dmem_cgroup_pool_state *pool;
	unsigned int done;

	for (done = 0; done < charge->units; done++) {
		if (dmem_cgroup_try_charge(charge->region, charge->unit, &pool, NULL))
			break;
		charge->pool = pool;
	}
	charge->units = done;
}

unsigned int coax_dmem_charge(struct coax_dmem *dmem, struct kthread_worker *worker, u64 unit,
			      unsigned int units, struct dmem_cgroup_pool_state **pool)
{
	struct charge_work charge_work = { .region = dmem->region, .unit = unit, .units = units };

	charge_work.work.func = charge;
	INIT_LIST_HEAD(&charge_work.work.node);
	kthread_queue_work(worker, &charge_work.work);
	kthread_flush_work(&charge_work.work);
	*pool = charge_work.pool;
	return charge_work.units;
}

#else

struct coax_dmem *coax_dmem_register(u64 size, const char *name, coax_dmem_reclaim_fn *reclaim, void *data)
{
	return NULL;
}

void coax_dmem_unregister(struct coax_dmem *dmem)
{
}

u64 coax_dmem_group(void)
{
	return 0;
}

struct kthread_worker *coax_dmem_charger(void)
{
	return ERR_PTR(-EOPNOTSUPP);
}

unsigned int coax_dmem_charge(struct coax_dmem *dmem, struct kthread_worker *worker, u64 unit,
			      unsigned int units, struct dmem_cgroup_pool_state **pool)
{
	return 0;
}

#endif

void coax_dmem_charger_end(struct kthread_worker *worker)
{
	kthread_destroy_worker(worker);
}

void coax_dmem_uncharge(struct dmem_cgroup_pool_state *pool, u64 unit, unsigned int units)
{
	while (units--)
		dmem_cgroup_uncharge(pool, unit);
}

bool coax_dmem_covers(struct dmem_cgroup_pool_state *limit, struct dmem_cgroup_pool_state *pool)
{
	bool hit_low;

	return dmem_cgroup_state_evict_valuable(limit, pool, true, &hit_low);
}
