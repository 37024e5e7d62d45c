/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "CommonSplinePairKernels.h"
#include "CommonSplinePairKernelSources.h"
#include "openmm/common/ContextSelector.h"
#include "openmm/OpenMMException.h"
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

// Sums in fixed point stay below this, which leaves a bit for rounding.
const double LARGEST_SUM = pow(2.0, 62);

// Groups of threads add to different copies of the sums, not to wait for each other; all copies are read back.
int getNumReplicas(int numSums) {
    return max(1, min(64, 65536/numSums));
}

double findLargestNorm(const Vec3* vectors, const vector<int>& selected) {
    double largest = 0;
    for (int i : selected) {
        double norm = sqrt(vectors[i].dot(vectors[i]));
        if (!isfinite(norm))
            return numeric_limits<double>::infinity();
        largest = max(largest, norm);
    }
    return largest;
}

bool areUniform(const vector<double>& edges) {
    double width = (edges.back()-edges.front())/(edges.size()-1);
    for (size_t i = 0; i < edges.size(); i++)
        if (abs(edges[i]-edges.front()-i*width) > 0.25*width)
            return false;
    return true;
}

} // namespace

/**
 * Tells OpenMM which particles it may swap to keep neighbors close in memory. It owns nothing: OpenMM deletes it as a
 * ComputeForceInfo, whose destructor is not virtual.
 */
class CommonCalcSplinePairForceKernel::ForceInfo : public ComputeForceInfo {
public:
    ForceInfo(const vector<int>& types, const vector<vector<int> >& excludedPairs) : types(types), excludedPairs(excludedPairs) {
    }
    bool areParticlesIdentical(int particle1, int particle2) {
        return types[particle1] == types[particle2];
    }
    int getNumParticleGroups() {
        return excludedPairs.size();
    }
    void getParticlesInGroup(int index, vector<int>& particles) {
        particles = excludedPairs[index];
    }
    bool areGroupsIdentical(int group1, int group2) {
        return true;
    }
private:
    const vector<int>& types;
    const vector<vector<int> >& excludedPairs;
};

void CommonCalcSplinePairForceKernel::initialize(const System& system, const SplinePairForce& force) {
    ContextSelector selector(cc);
    periodic = force.usesPeriodicBoundaryConditions();
    table.reset(new SplineTable(force));
    info = new ForceInfo(types, excludedPairs);
    vector<vector<int> > excluded(force.getNumParticles());
    for (int index = 0; index < force.getNumExclusions(); index++) {
        int i, j;
        force.getExclusionParticles(index, i, j);
        excluded[i].push_back(j);
        excluded[j].push_back(i);
        excludedPairs.push_back({i, j});
    }
    hasExclusions = (force.getNumExclusions() > 0);
    uploadTable();
    setTypes(force.getParticleTypes());
    uploadExclusions(excluded);
    addInteraction(system, force, excluded);
    cc.addForce(info);
}

// The table has rows for ordered pairs of types, so that the first row follows from the types without another look-up. All
// rows are cubic in t = x-row, where x is (r-rMin)/spacing+1; the straight line below rMin is moved accordingly.
void CommonCalcSplinePairForceKernel::uploadTable() {
    vector<double> values;
    for (int firstRow : table->getFirstRows())
        for (int row = 0; row < table->getRowsPerPair(); row++) {
            SplineTable::Row a = table->getRows()[firstRow+row];
            if (row == 0)
                a[0] -= a[1];
            values.insert(values.end(), a.begin(), a.end());
        }
    int elementSize = (cc.getUseDoublePrecision() ? sizeof(mm_double4) : sizeof(mm_float4));
    if (!rows.isInitialized())
        rows.initialize(cc, values.size()/4, elementSize, "splineRows");
    if (cc.getUseDoublePrecision())
        rows.upload(values.data());
    else
        rows.upload(vector<float>(values.begin(), values.end()).data());
}

void CommonCalcSplinePairForceKernel::setTypes(const vector<int>& all) {
    types = all;
    interacting.clear();
    for (int i = 0; i < (int) all.size(); i++)
        if (all[i] >= 0)
            interacting.push_back(i);
    vector<int> padded(all);
    padded.resize(cc.getPaddedNumAtoms(), -1);
    upload(typesOnDevice, padded);
}

void CommonCalcSplinePairForceKernel::uploadExclusions(const vector<vector<int> >& excluded) {
    vector<int> starts(1, 0), all;
    for (auto& list : excluded) {
        all.insert(all.end(), list.begin(), list.end());
        starts.push_back(all.size());
    }
    upload(exclusionStarts, starts);
    upload(exclusions, all);
}

void CommonCalcSplinePairForceKernel::addInteraction(const System& system, const SplinePairForce& force,
        const vector<vector<int> >& excluded) {
    int index = 0;
    while (&system.getForce(index) != &force)
        index++;
    string prefix = "spline"+cc.intToString(index)+"_";
    map<string, string> replacements;
    replacements["TABLE"] = prefix+"rows";
    replacements["INVERSE_SPACING"] = cc.doubleToString(1/table->getSpacing());
    replacements["FIRST_X"] = cc.doubleToString(1-table->getRMin()/table->getSpacing());
    string type1 = prefix+"type1", type2 = prefix+"type2";
    string typePair = type1+"*"+cc.intToString(table->getNumTypes())+"+"+type2;
    replacements["TYPE1"] = type1;
    replacements["TYPE2"] = type2;
    replacements["FIRST_ROW"] = (table->getNumTypes() == 1 ? "0" : "("+typePair+")*"+cc.intToString(table->getRowsPerPair()));
    vector<vector<int> > exclusionLists(excluded); // OpenMM excludes a particle from itself this way
    for (int i = 0; i < (int) exclusionLists.size(); i++)
        exclusionLists[i].push_back(i);
    NonbondedUtilities& nonbonded = cc.getNonbondedUtilities();
    nonbonded.addInteraction(true, periodic, true, force.getCutoffDistance(), exclusionLists,
            cc.replaceStrings(CommonSplinePairKernelSources::interaction, replacements), force.getForceGroup(),
            force.getNumParticles() > 2000, true);
    nonbonded.addArgument(ComputeParameterInfo(rows, prefix+"rows", "real", 4));
    nonbonded.addParameter(ComputeParameterInfo(typesOnDevice, prefix+"type", "int", 1));
}

// OpenMM's nonbonded kernel does it.
double CommonCalcSplinePairForceKernel::execute(ContextImpl& context, bool includeForces, bool includeEnergy) {
    return 0;
}

void CommonCalcSplinePairForceKernel::copyParametersToContext(ContextImpl& context, const SplinePairForce& force) {
    ContextSelector selector(cc);
    table->update(force);
    uploadTable();
    if (force.getParticleTypes() == types)
        return;
    setTypes(force.getParticleTypes());
    cc.invalidateMolecules(info, true, false);
}

void CommonCalcSplinePairForceKernel::createKernels() {
    map<string, string> defines;
    defines["PERIODIC"] = (periodic ? "1" : "0");
    defines["HAS_EXCLUSIONS"] = (hasExclusions ? "1" : "0");
    defines["INVERSE_SPACING"] = cc.doubleToString(1/table->getSpacing());
    defines["FIRST_X"] = cc.doubleToString(1-table->getRMin()/table->getSpacing());
    defines["ROWS_PER_PAIR"] = cc.intToString(table->getRowsPerPair());
    defines["NUM_TYPES"] = cc.intToString(table->getNumTypes());
    defines["NUM_MOMENTS"] = cc.intToString(getNumMoments());
    ComputeProgram program = cc.compileProgram(CommonSplinePairKernelSources::cells+CommonSplinePairKernelSources::splines+
            CommonSplinePairKernelSources::histogram, defines);
    sumsKernel.create(cc, program, "computeSums");
    productsKernel.create(cc, program, "computeProducts");
    histogramKernel.create(cc, program, "computeHistogram");
}

// Arrays grow as needed and never shrink.
template <class T>
void CommonCalcSplinePairForceKernel::upload(ComputeArray& array, const vector<T>& values) {
    size_t size = max<size_t>(values.size(), 1);
    if (!array.isInitialized())
        array.initialize<T>(cc, size, "splinePair");
    else if (array.getSize() < size)
        array.resize(size);
    if (values.size() > 0)
        array.uploadSubArray(values.data(), 0, values.size());
}

void CommonCalcSplinePairForceKernel::uploadMixed(ComputeArray& array, const vector<double>& values) {
    if (getMixedSize() == sizeof(double))
        upload(array, values);
    else
        upload(array, vector<float>(values.begin(), values.end()));
}

// Sort and upload the selected particles, each with a label as the fourth number of its position.
void CommonCalcSplinePairForceKernel::sortParticles(const PairConfiguration& configuration, const vector<int>& selected, double range,
        const vector<int>& labels) {
    if (!sumsKernel.isCreated())
        createKernels();
    grid.build(configuration.positions, selected, periodic ? configuration.box : nullptr, range);
    const vector<Vec3>& sorted = grid.getSorted();
    Vec3 origin = (sorted.empty() ? Vec3() : sorted[0]); // far from it, single precision would be lost
    uploadSorted(positions, [&] (int i) { return sorted[i]-origin; }, [&] (int i) { return labels[grid.getOrder()[i]]; });
    vector<int> cells(sorted.size());
    for (int cell = 0; cell < grid.getNumCells(); cell++)
        fill(cells.begin()+grid.getStarts()[cell], cells.begin()+grid.getStarts()[cell+1], cell);
    upload(particleCells, cells);
    upload(cellStarts, grid.getStarts());
    upload(order, grid.getOrder());
}

// Four numbers for each sorted particle i: a vector and a label.
void CommonCalcSplinePairForceKernel::uploadSorted(ComputeArray& array, const function<Vec3 (int)>& vectorOf,
        const function<double (int)>& labelOf) {
    vector<double> values;
    values.reserve(4*grid.getOrder().size());
    for (int i = 0; i < (int) grid.getOrder().size(); i++) {
        Vec3 v = vectorOf(i);
        values.insert(values.end(), {v[0], v[1], v[2], labelOf(i)});
    }
    uploadMixed(array, values);
}

// The largest factor with which a sum over the pairs of the sorted particles stays in range in fixed point.
double CommonCalcSplinePairForceKernel::getLargestScale(double largestTerm) const {
    double numParticles = grid.getOrder().size(), inCell = 0, numCells = 1;
    for (int cell = 0; cell < grid.getNumCells(); cell++)
        inCell = max(inCell, (double) (grid.getStarts()[cell+1]-grid.getStarts()[cell]));
    for (int axis = 0; axis < 3; axis++)
        numCells *= 2*grid.getReach()[axis]+1;
    double numPairs = 0.5*numParticles*min(numParticles, inCell*numCells);
    return LARGEST_SUM/(max(numPairs, 1.0)*largestTerm);
}

void CommonCalcSplinePairForceKernel::prepareSums(ComputeArray& array, int numSums) {
    size_t size = numSums*getNumReplicas(numSums);
    if (!array.isInitialized())
        array.initialize<long long>(cc, size, "splinePairSums");
    else if (array.getSize() != size)
        array.resize(size);
    cc.clearBuffer(array);
}

vector<long long> CommonCalcSplinePairForceKernel::downloadSums(ComputeArray& array, int numSums) {
    vector<long long> all, sums(numSums, 0);
    array.download(all);
    for (size_t i = 0; i < all.size(); i++)
        sums[i%numSums] += all[i];
    return sums;
}

// Sums of the weighted moments of each row become sums over the basis functions.
void CommonCalcSplinePairForceKernel::downloadMoments(ComputeArray& array, double scale, double* coefficients) {
    vector<long long> sums = downloadSums(array, getNumMoments());
    vector<SplineTable::Row> moments(table->getNumRows(), {0, 0, 0, 0});
    int next = 0;
    for (int firstRow : table->getFirstRows())
        for (int row = 0; row < table->getRowsPerPair(); row++)
            for (int k = 0; k < 4; k++)
                moments[firstRow+row][k] += sums[next++]/scale;
    for (int row = 0; row < table->getNumRows(); row += table->getRowsPerPair())
        moments[row][1] -= moments[row][0]; // as in uploadTable()
    table->toCoefficients(moments, coefficients);
}

void CommonCalcSplinePairForceKernel::computeSums(ContextImpl& context, const PairConfiguration& configuration,
        const PairSums& request, double* basis, double* virial, vector<vector<long long> >& counts) {
    ContextSelector selector(cc);
    if (request.includeBasis || request.includeVirial) {
        double range = table->getCutoff(), spacing = table->getSpacing(), largestOffset = 0;
        sortParticles(configuration, interacting, range, types);
        bool hasOffsets = (request.includeVirial && configuration.offsets != nullptr);
        if (hasOffsets) {
            largestOffset = findLargestNorm(configuration.offsets, interacting);
            uploadSorted(offsets, [&] (int i) { return configuration.offsets[grid.getOrder()[i]]; });
        }
        prepareSums(basisSums, getNumMoments());
        prepareSums(virialSums, getNumMoments());
        double largestPower = max(1.0, table->getRMin()/spacing);
        double basisScale = getLargestScale(largestPower), virialScale = getLargestScale(3*(range+2*largestOffset));
        int numParticles = interacting.size();
        if (numParticles > 0)
            sumsKernel.execute(numParticles, numParticles, positions, particleCells, cellStarts, grid.getDimensions(), grid.getReach(),
                    configuration.box[0], configuration.box[1], configuration.box[2], range, order, exclusionStarts, exclusions,
                    hasOffsets ? offsets : positions, (int) hasOffsets, basisSums, virialSums, (int) request.includeBasis,
                    (int) request.includeVirial, getNumReplicas(getNumMoments()), basisScale, virialScale);
        if (request.includeBasis)
            downloadMoments(basisSums, basisScale, basis);
        if (request.includeVirial)
            downloadMoments(virialSums, virialScale*spacing, virial);
    }
    for (size_t i = 0; i < request.histograms.size(); i++)
        computeHistogram(configuration, request.histograms[i], counts[i]);
}

void CommonCalcSplinePairForceKernel::computeHistogram(const PairConfiguration& configuration, const PairHistogram& histogram,
        vector<long long>& counts) {
    vector<int> selected;
    for (int i = 0; i < (int) histogram.selections.size(); i++)
        if (histogram.selections[i] != 0)
            selected.push_back(i);
    double range = histogram.edges.back();
    sortParticles(configuration, selected, range, histogram.selections);
    vector<int> sortedGroups;
    for (int particle : grid.getOrder())
        sortedGroups.push_back(histogram.groups.empty() ? -1 : histogram.groups[particle]);
    upload(groups, sortedGroups);
    uploadMixed(edges, histogram.edges);
    int numParticles = selected.size(), numBins = counts.size();
    prepareSums(histogramSums, numBins);
    if (numParticles > 0)
        histogramKernel.execute(numParticles, numParticles, positions, particleCells, cellStarts, grid.getDimensions(), grid.getReach(),
                configuration.box[0], configuration.box[1], configuration.box[2], range, groups, edges, numBins,
                (int) areUniform(histogram.edges), histogramSums, getNumReplicas(numBins));
    counts = downloadSums(histogramSums, numBins);
}

void CommonCalcSplinePairForceKernel::computeProducts(ContextImpl& context, const PairConfiguration& configuration,
        const Vec3* vectorsOnHost, Vec3* hessianProduct, double* parameterProduct) {
    ContextSelector selector(cc);
    if (hessianProduct != nullptr)
        fill(hessianProduct, hessianProduct+types.size(), Vec3());
    sortParticles(configuration, interacting, table->getCutoff(), types);

    // The vectors are scaled to at most 1. If one is not finite, the results are not either.

    double norm = findLargestNorm(vectorsOnHost, interacting);
    if (norm == 0)
        norm = 1;
    uploadSorted(vectors, [&] (int i) { return vectorsOnHost[grid.getOrder()[i]]/norm; });
    int numParticles = interacting.size();
    if (!products.isInitialized())
        products.initialize(cc, max<size_t>(types.size(), 1), 4*getMixedSize(), "splinePairProducts");
    prepareSums(basisSums, getNumMoments());
    double scale = getLargestScale(6);
    if (numParticles > 0)
        productsKernel.execute(numParticles, numParticles, positions, particleCells, cellStarts, grid.getDimensions(), grid.getReach(),
                configuration.box[0], configuration.box[1], configuration.box[2], table->getCutoff(), order, exclusionStarts, exclusions,
                rows, vectors, products, basisSums, (int) (hessianProduct != nullptr), (int) (parameterProduct != nullptr),
                getNumReplicas(getNumMoments()), scale);
    if (hessianProduct != nullptr && numParticles > 0) {
        vector<mm_double4> sorted;
        products.download(sorted, true);
        for (int i = 0; i < numParticles; i++)
            hessianProduct[grid.getOrder()[i]] = Vec3(sorted[i].x, sorted[i].y, sorted[i].z)*norm;
    }
    if (parameterProduct != nullptr)
        downloadMoments(basisSums, scale*table->getSpacing()/norm, parameterProduct);
}

bool CommonCalcSplinePairForceKernel::hasNewNeighborLists(ContextImpl& context) {
    ContextSelector selector(cc);
    vector<int> wasRebuilt;
    cc.getNonbondedUtilities().getRebuildNeighborList().download(wasRebuilt);
    return wasRebuilt[0] != 0;
}
