// SPDX-License-Identifier: GPL-2.0
/* Sharing page tables of processes with a device through its IOMMU. */
#include "shim.h"

#include <linux/iommu.h>
#include <linux/sched.h>

struct coax_sva *coax_sva_bind_current(struct device *dev)
{
	return (struct coax_sva *)iommu_sva_bind_device(dev, current->mm);
}

u32 coax_sva_pasid(struct coax_sva *handle)
{
	return iommu_sva_get_pasid((struct iommu_sva *)handle);
}

void coax_sva_unbind(struct coax_sva *handle)
{
	iommu_sva_unbind_device((struct iommu_sva *)handle);
}
