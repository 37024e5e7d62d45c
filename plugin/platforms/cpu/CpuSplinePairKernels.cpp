/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "CpuSplinePairKernels.h"
#include "openmm/cpu/CpuPlatform.h"
#include "openmm/reference/ReferencePlatform.h"
#include <algorithm>
#include <cmath>
#include <cstdlib>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

const int WIDTH = CpuPairLoops::MAX_WIDTH;

ThreadPool& getThreads(ContextImpl& context) {
    return CpuPlatform::getPlatformData(context).threads;
}

// OPENMM_DIFFSIM_PORTABLE makes this machine test what others run.
const CpuPairLoops& fastestLoops() {
    const CpuPairLoops* avx2 = (getenv("OPENMM_DIFFSIM_PORTABLE") == nullptr ? getAvx2PairLoops() : nullptr);
    return avx2 == nullptr ? getVec4PairLoops() : *avx2;
}

// The thread's part of a range.
int firstOf(int thread, int numThreads, int count) {
    return (int) ((long long) count*thread/numThreads);
}

// Are these the bins of a regular grid, to within what single precision can tell?
bool isUniform(const vector<double>& edges) {
    double width = (edges.back()-edges[0])/(edges.size()-1);
    for (size_t i = 0; i < edges.size(); i++)
        if (fabs(edges[i]-edges[0]-i*width) > 1e-7*width)
            return false;
    return true;
}

/**
 * Counts pairs in uniform bins, both orders of each.
 */
class UniformCounts {
public:
    UniformCounts(const CpuPairLoops& loops, const vector<double>& edges, vector<long long>& counts) : loops(loops), counts(counts),
            numBins(edges.size()-1), first(edges[0]), inverseWidth(numBins/(edges.back()-edges[0])), pending(0) {
        lanes.assign(WIDTH*(numBins+1), 0);
    }
    ~UniformCounts() {
        flush();
    }
    void add(int numDistances, const float* squares) {
        loops.countUniform(numDistances, squares, first, inverseWidth, numBins, lanes.data());
        if ((pending += numDistances) > 1<<30)
            flush();
    }
private:
    // Before an int has no room for more.
    void flush() {
        for (int i = 0; i < WIDTH*numBins; i++)
            counts[i/WIDTH] += 2*lanes[i];
        lanes.assign(WIDTH*(numBins+1), 0);
        pending = 0;
    }
    const CpuPairLoops& loops;
    vector<long long>& counts;
    vector<int> lanes;
    int numBins;
    double first, inverseWidth;
    long long pending;
};

} // namespace

CpuCalcSplinePairForceKernel::CpuCalcSplinePairForceKernel(string name, const Platform& platform) :
        CalcSplinePairForceKernel(name, platform), loops(fastestLoops()) {
}

void CpuCalcSplinePairForceKernel::initialize(const System& system, const SplinePairForce& force) {
    periodic = force.usesPeriodicBoundaryConditions();
    table.reset(new SplineTable(force));
    fillRows();
    types = force.getParticleTypes();
    exclusions.resize(types.size());
    hasExclusions = (force.getNumExclusions() > 0);
    for (int index = 0; index < force.getNumExclusions(); index++) {
        int i, j;
        force.getExclusionParticles(index, i, j);
        exclusions[i].push_back(j);
        exclusions[j].push_back(i);
    }
    present.reset(new CpuPairList(loops, table->getCutoff(), periodic, types, exclusions));
    stored.reset(new CpuPairList(loops, table->getCutoff(), periodic, types, exclusions));
}

void CpuCalcSplinePairForceKernel::copyParametersToContext(ContextImpl& context, const SplinePairForce& force) {
    table->update(force);
    fillRows();
    if (types != force.getParticleTypes()) {
        types = force.getParticleTypes();
        present->invalidate();
        stored->invalidate();
    }
}

void CpuCalcSplinePairForceKernel::fillRows() {
    rows.clear();
    for (const SplineTable::Row& row : table->getRows())
        rows.insert(rows.end(), row.begin(), row.end());
}

CpuPairModel CpuCalcSplinePairForceKernel::makeModel(const Vec3* box) const {
    CpuPairModel model;
    model.rows = rows.data();
    model.firstRows = table->getFirstRows().data();
    model.numTypes = table->getNumTypes();
    model.numKnots = table->getNumKnots();
    model.rMin = table->getRMin();
    model.inverseSpacing = 1/table->getSpacing();
    model.periodic = periodic;
    model.triclinic = (box[1][0] != 0 || box[2][0] != 0 || box[2][1] != 0);
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++)
            model.box[i][j] = box[i][j];
        model.inverseBox[i] = 1/box[i][i];
    }
    return model;
}

double CpuCalcSplinePairForceKernel::execute(ContextImpl& context, bool includeForces, bool includeEnergy) {
    ReferencePlatform::PlatformData& data = *reinterpret_cast<ReferencePlatform::PlatformData*>(context.getPlatformData());
    ThreadPool& threads = getThreads(context);
    PairConfiguration configuration;
    configuration.positions = data.positions->data();
    copy(data.periodicBoxVectors, data.periodicBoxVectors+3, configuration.box);
    present->update(configuration, threads);
    CpuPairModel model = makeModel(configuration.box);
    vector<double> energies(threads.getNumThreads());
    forces.resize(threads.getNumThreads());
    forEachThread(threads, [&] (int thread) {
        clearForces(*present, thread);
        energies[thread] = loops.addForces(model, present->getNeighbors(thread), present->getPositions(), includeEnergy,
                forces[thread].data());
    });
    if (includeForces)
        sumForces(*present, threads, data.forces->data());
    double energy = 0;
    for (double part : energies)
        energy += part;
    return energy;
}

void CpuCalcSplinePairForceKernel::clearForces(const CpuPairList& list, int thread) {
    forces[thread].assign(4*list.getNumParticles(), 0.0f);
}

// Add the forces of all threads to those of all particles.
void CpuCalcSplinePairForceKernel::sumForces(const CpuPairList& list, ThreadPool& threads, Vec3* total) const {
    const vector<int>& order = list.getOrder();
    int numThreads = threads.getNumThreads();
    forEachThread(threads, [&] (int thread) {
        int end = firstOf(thread+1, numThreads, order.size());
        for (int i = firstOf(thread, numThreads, order.size()); i < end; i++)
            for (const vector<float>& part : forces)
                total[order[i]] += Vec3(part[4*i], part[4*i+1], part[4*i+2]);
    });
}

// The MD's own list where it is good for these positions, as it is just after a step.
CpuPairList& CpuCalcSplinePairForceKernel::findList(const PairConfiguration& configuration, ThreadPool& threads) {
    if (present->tryUpdate(configuration))
        return *present;
    stored->update(configuration, threads);
    return *stored;
}

vector<float> CpuCalcSplinePairForceKernel::sort(const CpuPairList& list, const Vec3* vectors, double scale) const {
    const vector<int>& order = list.getOrder();
    vector<float> sorted(4*order.size());
    for (size_t i = 0; i < order.size(); i++)
        for (int axis = 0; axis < 3; axis++)
            sorted[4*i+axis] = vectors[order[i]][axis]*scale;
    return sorted;
}

vector<CpuCalcSplinePairForceKernel::Moments> CpuCalcSplinePairForceKernel::makeMoments(int numThreads) const {
    return vector<Moments>(numThreads, Moments(table->getNumRows(), {0, 0, 0, 0}));
}

CpuCalcSplinePairForceKernel::Moments CpuCalcSplinePairForceKernel::sum(const vector<Moments>& parts) const {
    Moments total = parts[0];
    for (size_t i = 1; i < parts.size(); i++)
        for (size_t row = 0; row < total.size(); row++)
            for (int k = 0; k < 4; k++)
                total[row][k] += parts[i][row][k];
    return total;
}

void CpuCalcSplinePairForceKernel::computeSums(ContextImpl& context, const PairConfiguration& configuration, const PairSums& request,
        double* basis, double* virial, vector<vector<long long> >& counts) {
    ThreadPool& threads = getThreads(context);
    if (request.includeBasis || request.includeVirial) {
        const CpuPairList& list = findList(configuration, threads);
        CpuPairModel model = makeModel(configuration.box);
        bool hasOffsets = (configuration.offsets != nullptr);
        vector<float> offsets;
        if (hasOffsets)
            offsets = sort(list, configuration.offsets, 1);
        vector<Moments> basisMoments = makeMoments(threads.getNumThreads()), virialMoments = basisMoments;
        forEachThread(threads, [&] (int thread) {
            loops.addSums(model, list.getNeighbors(thread), list.getPositions(), hasOffsets ? offsets.data() : nullptr,
                    request.includeBasis || !hasOffsets ? basisMoments[thread][0].data() : nullptr,
                    hasOffsets ? virialMoments[thread][0].data() : nullptr);
        });
        Moments basisSum = sum(basisMoments);
        if (request.includeBasis)
            table->toCoefficients(basisSum, basis);
        if (request.includeVirial)
            table->toCoefficients(hasOffsets ? sum(virialMoments) : table->toVirialMoments(basisSum), virial);
    }
    for (size_t i = 0; i < request.histograms.size(); i++)
        countPairs(configuration, threads, request.histograms[i], counts[i]);
}

void CpuCalcSplinePairForceKernel::computeProducts(ContextImpl& context, const PairConfiguration& configuration, const Vec3* vectors,
        Vec3* hessianProduct, double* parameterProduct) {
    ThreadPool& threads = getThreads(context);
    const CpuPairList& list = findList(configuration, threads);
    CpuPairModel model = makeModel(configuration.box);

    // Vectors of any size, scaled to be safe in single precision.

    double largest = 0;
    for (size_t i = 0; i < types.size(); i++)
        for (int axis = 0; axis < 3; axis++)
            largest = max(largest, fabs(vectors[i][axis]));
    double scale = (largest > 0 ? largest : 1);
    vector<float> sorted = sort(list, vectors, 1/scale);
    vector<Moments> moments = makeMoments(threads.getNumThreads());
    forces.resize(threads.getNumThreads());
    forEachThread(threads, [&] (int thread) {
        clearForces(list, thread);
        loops.addProducts(model, list.getNeighbors(thread), list.getPositions(), sorted.data(),
                hessianProduct != nullptr ? forces[thread].data() : nullptr,
                parameterProduct != nullptr ? moments[thread][0].data() : nullptr);
    });
    if (hessianProduct != nullptr) {
        fill(hessianProduct, hessianProduct+types.size(), Vec3());
        sumForces(list, threads, hessianProduct);
        for (size_t i = 0; i < types.size(); i++)
            hessianProduct[i] *= scale;
    }
    if (parameterProduct != nullptr) {
        table->toCoefficients(sum(moments), parameterProduct);
        for (int k = 0; k < table->getNumTypePairs()*table->getNumCoefficients(); k++)
            parameterProduct[k] *= scale;
    }
}

// The list of this force knows its box. OpenMM has one for its own forces, and does not say when it was made.
bool CpuCalcSplinePairForceKernel::hasNewNeighborLists(ContextImpl& context) {
    return CpuPlatform::getPlatformData(context).neighborList == nullptr;
}

void CpuCalcSplinePairForceKernel::countPairs(const PairConfiguration& configuration, ThreadPool& threads,
        const PairHistogram& histogram, vector<long long>& counts) {
    vector<int> selected;
    bool isUniformCount = (histogram.groups.size() == 0 && isUniform(histogram.edges));
    for (int i = 0; i < (int) types.size(); i++)
        if ((histogram.selections[i]&3) != 0) {
            selected.push_back(i);
            isUniformCount &= ((histogram.selections[i]&3) == 3);
        }
    int numThreads = threads.getNumThreads();
    vector<vector<long long> > parts(numThreads, vector<long long>(counts.size(), 0));
    bool areListed = (isUniformCount && histogram.edges.back() <= table->getCutoff() && selected.size() == types.size() &&
            !hasExclusions && *min_element(types.begin(), types.end()) >= 0);
    if (areListed) {
        const CpuPairList& list = findList(configuration, threads);
        CpuPairModel model = makeModel(configuration.box);
        forEachThread(threads, [&] (int thread) {
            vector<float> squares(list.getNumIndices(thread));
            loops.findListedDistances(model, list.getNeighbors(thread), list.getPositions(), squares.data());
            UniformCounts(loops, histogram.edges, parts[thread]).add(squares.size(), squares.data());
        });
    }
    else {
        CellGrid grid;
        grid.build(configuration.positions, selected, periodic ? configuration.box : nullptr, histogram.edges.back());
        CpuCoordinates coordinates;
        coordinates.assign(grid.getSorted());
        forEachThread(threads, [&] (int thread) {
            countInCells(grid, coordinates, histogram, isUniformCount, thread, numThreads, parts[thread]);
        });
    }
    for (const vector<long long>& part : parts)
        for (size_t bin = 0; bin < counts.size(); bin++)
            counts[bin] += part[bin];
}

// Count the pairs of every numThreads-th cell.
void CpuCalcSplinePairForceKernel::countInCells(const CellGrid& grid, const CpuCoordinates& at, const PairHistogram& histogram,
        bool isUniformCount, int thread, int numThreads, vector<long long>& counts) const {
    const vector<double>& edges = histogram.edges;
    const vector<int>& order = grid.getOrder();
    const vector<int>& starts = grid.getStarts();
    UniformCounts uniformCounts(loops, edges, counts);
    vector<int> found;
    vector<float> squares;
    vector<CellGrid::Run> runs;
    for (int cell = thread; cell < grid.getNumCells(); cell += numThreads) {
        if (starts[cell] == starts[cell+1])
            continue;
        grid.getNeighbors(cell, runs);
        size_t most = 2*WIDTH;
        for (const CellGrid::Run& run : runs)
            most += run.end-run.begin;
        if (squares.size() < most) {
            found.resize(most);
            squares.resize(most);
        }
        for (int i = starts[cell]; i < starts[cell+1]; i++) {
            int count = loops.findDistances(i, at.x.data(), at.y.data(), at.z.data(), runs.data(), runs.size(), edges.back(),
                    isUniformCount ? nullptr : found.data(), squares.data());
            if (isUniformCount) {
                uniformCounts.add(count, squares.data());
                continue;
            }
            int particle = order[i], a = histogram.selections[particle];
            for (int k = 0; k < count; k++) {
                int other = order[found[k]], b = histogram.selections[other];
                if (histogram.groups.size() > 0 && histogram.groups[particle] >= 0 &&
                        histogram.groups[particle] == histogram.groups[other])
                    continue;
                int times = ((a&1) != 0 && (b&2) != 0)+((a&2) != 0 && (b&1) != 0);
                int bin = (int) (upper_bound(edges.begin(), edges.end(), sqrt((double) squares[k]))-edges.begin())-1;
                if (bin >= 0 && bin < (int) counts.size())
                    counts[bin] += times;
            }
        }
    }
}
