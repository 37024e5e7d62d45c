/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "CpuPairList.h"
#include <algorithm>
#include <numeric>
#include <utility>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

const double PADDING = 0.1; // of the cutoff; more of it means fewer new lists and more pairs that turn out to be too far

} // namespace

void DiffSim::forEachThread(ThreadPool& threads, const function<void (int)>& function) {
    if (threads.getNumThreads() == 1) {
        function(0);
        return;
    }
    threads.execute([&] (ThreadPool& pool, int thread) {
        function(thread);
    });
    threads.waitForThreads();
}

void CpuCoordinates::assign(const vector<Vec3>& points) {
    size_t size = points.size()+CpuPairLoops::MAX_WIDTH;
    x.resize(size);
    y.resize(size);
    z.resize(size);
    for (size_t i = 0; i < points.size(); i++) {
        x[i] = points[i][0];
        y[i] = points[i][1];
        z[i] = points[i][2];
    }
}

CpuPairList::CpuPairList(const CpuPairLoops& loops, double cutoff, bool periodic, const vector<int>& types,
        const vector<vector<int> >& exclusions) : loops(loops), cutoff(cutoff), padding(PADDING*cutoff), periodic(periodic),
        valid(false), types(types), exclusions(exclusions) {
}

bool CpuPairList::tryUpdate(const PairConfiguration& configuration) {
    if (!valid)
        return false;
    if (periodic)
        for (int axis = 0; axis < 3; axis++)
            if (configuration.box[axis] != box[axis])
                return false;
    const vector<int>& order = grid.getOrder();
    const vector<Vec3>& sorted = grid.getSorted();
    double farthest = 0;
    for (size_t i = 0; i < order.size(); i++) {
        Vec3 r = configuration.positions[order[i]]-images[i];
        Vec3 moved = r-sorted[i];
        farthest = max(farthest, moved.dot(moved));
        positions[4*i] = r[0];
        positions[4*i+1] = r[1];
        positions[4*i+2] = r[2];
    }
    return 4*farthest < padding*padding;
}

void CpuPairList::update(const PairConfiguration& configuration, ThreadPool& threads) {
    if (!tryUpdate(configuration))
        build(configuration, threads);
}

void CpuPairList::build(const PairConfiguration& configuration, ThreadPool& threads) {
    copy(configuration.box, configuration.box+3, box);
    vector<int> interacting;
    for (int i = 0; i < (int) types.size(); i++)
        if (types[i] >= 0)
            interacting.push_back(i);
    grid.build(configuration.positions, interacting, periodic ? box : nullptr, cutoff+padding);
    coordinates.assign(grid.getSorted());
    int count = interacting.size();
    images.resize(count);
    positions.resize(4*count);
    for (int i = 0; i < count; i++) {
        int particle = grid.getOrder()[i];
        Vec3 r = grid.getSorted()[i];
        images[i] = configuration.positions[particle]-r;
        for (int axis = 0; axis < 3; axis++)
            positions[4*i+axis] = r[axis];
        positions[4*i+3] = types[particle];
    }

    share(count, threads.getNumThreads());
    forEachThread(threads, [&] (int thread) {
        buildPart(parts[thread]);
    });
    valid = true;
}

// Divide the particles so that each thread had as many neighbors in the last list: those that come first in the order have
// more that follow them.
void CpuPairList::share(int count, int numThreads) {
    vector<int> ends;
    if ((int) parts.size() == numThreads && parts.back().end == count) {
        long long total = 0, sum = 0;
        for (const Part& part : parts)
            total += accumulate(part.counts.begin(), part.counts.end(), 0LL);
        for (const Part& part : parts)
            for (int i = part.begin; i < part.end; i++) {
                sum += part.counts[i-part.begin];
                if (sum*numThreads >= total*(long long) (ends.size()+1))
                    ends.push_back(i+1);
            }
    }
    else
        for (int i = 1; i < numThreads; i++)
            ends.push_back((int) ((long long) count*i/numThreads));
    ends.resize(numThreads-1, count);
    parts.resize(numThreads);
    for (int i = 0; i < numThreads; i++) {
        parts[i].begin = (i == 0 ? 0 : ends[i-1]);
        parts[i].end = (i == numThreads-1 ? count : ends[i]);
    }
}

void CpuPairList::buildPart(Part& part) {
    const vector<int>& starts = grid.getStarts();
    part.counts.resize(part.end-part.begin);
    size_t used = 0;
    vector<CellGrid::Run> runs;

    // Beyond half the box, a second image of a particle may be in range. The loops find the nearest by themselves.

    bool hasSecondImages = (periodic && cutoff+padding > 0.5*min(box[0][0], min(box[1][1], box[2][2])));
    vector<int> lastFoundBy(hasSecondImages ? grid.getOrder().size() : 0, -1);
    int cell = upper_bound(starts.begin(), starts.end(), part.begin)-starts.begin()-1;
    int room = 0;
    for (int i = part.begin, end = part.begin; i < part.end; i++) {
        if (i == end) {
            while (starts[cell+1] <= i)
                cell++;
            grid.getNeighbors(cell, runs);
            room = 2*CpuPairLoops::MAX_WIDTH;
            for (const CellGrid::Run& run : runs)
                room += run.end-run.begin;
            end = starts[cell+1];
            cell++;
        }
        if (part.indices.size() < used+room)
            part.indices.resize(max(used+room, 2*part.indices.size()));
        int* neighbors = part.indices.data()+used;
        int found = loops.findNeighbors(i, coordinates.x.data(), coordinates.y.data(), coordinates.z.data(), runs.data(), runs.size(),
                cutoff+padding, neighbors);
        if (hasSecondImages)
            found = remove_if(neighbors, neighbors+found, [&] (int j) {
                return exchange(lastFoundBy[j], i) == i;
            })-neighbors;
        found = removeExcluded(grid.getOrder()[i], neighbors, found);
        part.counts[i-part.begin] = found;
        for (used += found; used%loops.getWidth() != 0; used++)
            part.indices[used] = i;
    }
    part.numIndices = used;
}

int CpuPairList::removeExcluded(int particle, int* neighbors, int count) const {
    const vector<int>& excluded = exclusions[particle];
    if (excluded.size() == 0)
        return count;
    const vector<int>& order = grid.getOrder();
    return remove_if(neighbors, neighbors+count, [&] (int j) {
        return find(excluded.begin(), excluded.end(), order[j]) != excluded.end();
    })-neighbors;
}
